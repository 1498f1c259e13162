"""The stages of `sightline run` on the embedded data: seconds of each, and the peak of memory.

    python benchmarks/demo.py [--recipe shapes-quick] [--repeats 3] [--json FILE]

Every repeat is a process of its own, so that imports and memory are counted as a user meets them.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import publish


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="shapes-quick")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(_stages(options.recipe, options.changes)))
        return
    changes = [part for change in options.changes for part in ("--set", change)]
    command = [sys.executable, __file__, "--once", "--recipe", options.recipe, *changes]
    found = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(options.repeats)
    ]
    rows = [_row(stage, [one[stage] for one in found]) for stage in found[0]]
    publish("demo", rows, device="cpu", json_file=options.json)


def _stages(recipe: str, changes: list[str]) -> dict[str, dict[str, float]]:
    """Run once in this process; return seconds and the peak of memory so far (MB) by stage."""
    found: dict[str, dict[str, float]] = {}
    begin = time.perf_counter()

    def mark(stage: str, since: float) -> float:
        now = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found[stage] = {"seconds": now - since, "peak MB": peak}
        return now

    from sightline.report import write_report
    from sightline.runs import analyze, start_run, train

    with tempfile.TemporaryDirectory() as place:
        run = start_run(recipe, changes=changes, out=Path(place) / "run")
        data = run.data()
        since = mark("import, data, checks", begin)
        train(run, data)
        since = mark("range test and training", since)
        analyze(run, data)
        since = mark("predict, explain, measure", since)
        write_report(run.folder)
        mark("figures and report", since)
        mark("all", begin)
    return found


def _row(stage: str, found: list[dict[str, float]]) -> dict[str, Any]:
    seconds = [one["seconds"] for one in found]
    return {
        "stage": stage,
        "seconds": round(statistics.median(seconds), 1),
        "low": round(min(seconds), 1),
        "high": round(max(seconds), 1),
        "peak MB so far": round(max(one["peak MB"] for one in found)),
        "n": len(found),
    }


if __name__ == "__main__":
    main()
