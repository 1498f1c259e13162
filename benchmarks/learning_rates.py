"""How good is the suggested learning rate? Training at it, against a sweep of rates, on held-out images.

    python benchmarks/learning_rates.py RECIPE [--data-dir DIR] [--seeds 0,1,2] [--json FILE]

A stratified part of the training split is held out; the test split is never looked at. The range test of
the recipe runs on the rest, then the whole recipe trains there at each rate of the sweep (powers of two
times the recommended rate, and what each rule suggested), once per seed. Printed: accuracy on the held-out
images per rate, and how far the recommendation stays behind the best of the sweep. The best of many noisy
means is too good by chance, so the distance is, if anything, overstated.

With --json each training is written as it ends, and a later call with the same file goes on from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from harness import publish

from sightline.data import Dataset
from sightline.files import write_text
from sightline.runs import describe_range_test, range_test, recipe_data, start_run, train
from sightline.training import LR_RULES, Recipe, load_recipe
from sightline.training.trainer import hold_out

GOAL = 0.3  # points


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=_integers, default=[0, 1, 2], help="of the trainings")
    parser.add_argument("--sweeps", type=int, default=3, help="of the range test")
    parser.add_argument("--rates", type=_numbers, help="of the sweep, in place of the powers of two")
    parser.add_argument("--held", type=float, default=0.1, help="share of the training split held out")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    changes = list(options.changes)
    if options.data_dir:
        changes.append(f"data.dir={json.dumps(str(options.data_dir))}")
    recipe = load_recipe(options.recipe, [*changes, "analysis.range_test=false"])
    with tempfile.TemporaryDirectory() as folder:  # precision and memory format are measured once for all
        recipe = start_run(recipe, out=Path(folder) / "run", device=options.device).recipe
    whole = recipe_data(recipe)
    kept, held = hold_out(whole.train, options.held, 0)
    assert held is not None, "--held has to be over 0"
    data = dataclasses.replace(whole, train=whole.train.take(kept), test=held)

    found = range_test(recipe, data, sweeps=options.sweeps, device=options.device)
    print("range test:", describe_range_test(found), flush=True)
    sweep = options.rates or [found.suggestion * 2.0**k for k in range(-3, 4)]
    rates = {f"sweep {k}": lr for k, lr in enumerate(sweep, 1)} | found.suggestions
    results = _done(options.json)
    for seed in options.seeds:
        for lr in sorted({round(lr, 6) for lr in rates.values()}):
            if not any((row["seed"], row["lr"]) == (seed, lr) for row in results):
                results.append({"seed": seed, "lr": lr} | _train(recipe, data, lr, seed, options.device))
                print(results[-1], flush=True)
                _keep(options.json, results)
    rows = _table(rates, results, options.seeds)
    publish("learning_rates", rows, device=_device(options.device), json_file=None)
    _verdict(rows, found.recommended)


def _train(recipe: Recipe, data: Dataset, lr: float, seed: int, device: str) -> dict[str, Any]:
    training = recipe.training.model_copy(update={"seed": seed})
    changed = recipe.with_lr(lr).model_copy(update={"training": training})
    with tempfile.TemporaryDirectory() as folder:
        try:
            begun = start_run(changed, out=Path(folder) / "run", device=device)
            history = train(begun, data, device=device)
        except Exception as error:  # a rate that is far too high ends here: an accuracy of nothing
            if "the loss is" not in str(error):
                raise
            return {"accuracy": 0.0, "seconds": 0.0}
    last = history.epochs[-1]
    return {
        "accuracy": last["test_accuracy"],
        "seconds": round(sum(row["seconds"] for row in history.epochs), 1),
    }


def _table(rates: dict[str, float], results: list[dict[str, Any]], seeds: list[int]) -> list[dict[str, Any]]:
    rows = []
    for lr in sorted({round(lr, 6) for lr in rates.values()}):
        found = [100 * r["accuracy"] for r in results if r["lr"] == lr and r["seed"] in seeds]
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        names = ", ".join(name for name, value in rates.items() if round(value, 6) == lr)
        rows.append(
            {"rate": f"{lr:.3g}", "what": names, "held-out accuracy %": round(statistics.mean(found), 2)}
            | {"sd": round(spread, 2), "n": len(found)}
        )
    return rows


def _verdict(rows: list[dict[str, Any]], recommended: str) -> None:
    accuracy = "held-out accuracy %"
    best = max(rows, key=lambda row: row[accuracy])
    print(f"best of the sweep: {best[accuracy]:.2f} % at {best['rate']}")
    for row in rows:
        behind = best[accuracy] - row[accuracy]
        within = f"within {GOAL}" if behind <= GOAL else f"not within {GOAL}"
        for name in (*LR_RULES, "trials"):
            if name in row["what"].split(", "):
                chosen = ", recommended" if name == recommended else ""
                print(f"{name} {row['rate']}{chosen}: {row[accuracy]:.2f} %, {behind:.2f} behind, {within}")


def _done(file: Path | None) -> list[dict[str, Any]]:
    return json.loads(file.read_text()) if file is not None and file.exists() else []


def _keep(file: Path | None, results: list[dict[str, Any]]) -> None:
    if file is not None:
        write_text(file, json.dumps(results, indent=2) + "\n")


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _device(name: str) -> str:
    from sightline.models import choose_device

    return str(choose_device(name))


if __name__ == "__main__":
    main()
