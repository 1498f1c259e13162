"""What the benchmarks share: the machine's description, repeated timing, a table, a JSON file."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sightline.files import write_text


def hardware(device: str) -> dict[str, Any]:
    """Return what a published number needs beside it: processor, cores, threads, device, versions."""
    gpu = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": gpu or device,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def repeat(work: Callable[[], int], *, repeats: int, device: str = "cpu") -> dict[str, float]:
    """Run `work`, which returns how many images it handled, once to warm up and then `repeats` times.

    Returns images/s: the median, and the lowest and highest as the spread.
    """
    rates = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        images = work()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        rates.append(images / (time.perf_counter() - begin))
    timed = rates[1:]
    return {"median": statistics.median(timed), "low": min(timed), "high": max(timed), "repeats": repeats}


def publish(benchmark: str, rows: list[dict[str, Any]], *, device: str, json_file: Path | None) -> None:
    """Print the rows (dicts with the same keys) as a table with the hardware; write JSON if asked."""
    machine, command = hardware(device), shlex.join(["python", *sys.argv])
    cells = [list(rows[0])] + [[_spelled(value) for value in row.values()] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    if json_file:
        result = {"benchmark": benchmark, "hardware": machine, "command": command, "rows": rows}
        write_text(json_file, json.dumps(result, indent=2) + "\n")


def _spelled(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, float) and value >= 100 else str(value)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
