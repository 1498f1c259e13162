"""How good is a learning rate of "find"? Training at it, against a sweep of rates, on held-out images.

    python benchmarks/learning_rates.py RECIPE [--data-dir DIR] [--seeds 0,1,2] [--rates 0.1,0.2]

A stratified part of the training split is held out; the test split is never looked at. For each seed the
search runs as a run with "find" does it, within 5 % of the training's steps or with --steps; then the whole
recipe trains at what it suggests and at each rate of the sweep (by default powers of two times the first
suggestion). Printed: accuracy on the held-out images per rate, and how far "find" stays behind the best of
the sweep. The best of many noisy means is too good by chance, so the distance is, if anything, overstated.

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
from sightline.errors import DivergedError
from sightline.files import write_text
from sightline.runs import describe_range_test, range_test, recipe_data, start_run, train
from sightline.training import Recipe, load_recipe
from sightline.training.trainer import hold_out

GOAL = 0.5  # points


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=_integers, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of the search, in place of 5 %% of the training's")
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

    found: dict[int, float] = {}
    for seed in options.seeds:
        test = range_test(_seeded(recipe, seed), data, steps=options.steps, device=options.device)
        found[seed] = round(test.suggestion, 6)
        print(f"seed {seed}:", describe_range_test(test), flush=True)
    rates = options.rates or [found[options.seeds[0]] * 2.0**k for k in range(-3, 4)]
    rates = sorted(round(lr, 6) for lr in rates)
    results = _done(options.json)
    for seed in options.seeds:
        for lr in sorted({*rates, found[seed]}):
            if not any((row["seed"], round(row["lr"], 6)) == (seed, lr) for row in results):
                results.append({"seed": seed, "lr": lr} | _train(recipe, data, lr, seed, options.device))
                print(results[-1], flush=True)
                _keep(options.json, results)
    sweep = [_row(f"{lr:.3g}", results, dict.fromkeys(options.seeds, lr)) for lr in rates]
    chosen = _row("find", results, found)
    publish("learning_rates", [*sweep, chosen], device=_device(options.device), json_file=None)
    best = max(sweep, key=lambda row: row[ACCURACY])
    behind = best[ACCURACY] - chosen[ACCURACY]
    within = "within" if behind <= GOAL else "not within"
    print(f"find: {chosen[ACCURACY]:.2f} %, {behind:.2f} points behind {best['rate']}: {within} {GOAL}")


ACCURACY = "held-out accuracy %"


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": seed})})


def _train(recipe: Recipe, data: Dataset, lr: float, seed: int, device: str) -> dict[str, Any]:
    changed = _seeded(recipe.with_lr(lr), seed)
    with tempfile.TemporaryDirectory() as folder:
        try:
            begun = start_run(changed, out=Path(folder) / "run", device=device)
            history = train(begun, data, device=device)
        except DivergedError:  # a rate that is far too high ends here: an accuracy of nothing
            return {"accuracy": 0.0, "seconds": 0.0}
    last = history.epochs[-1]
    return {
        "accuracy": last["test_accuracy"],
        "seconds": round(sum(row["seconds"] for row in history.epochs), 1),
    }


def _row(name: str, results: list[dict[str, Any]], lrs: dict[int, float]) -> dict[str, Any]:
    """The accuracy over the seeds, each at its learning rate."""
    found = [
        100 * row["accuracy"]
        for row in results
        if row["seed"] in lrs and round(row["lr"], 6) == lrs[row["seed"]]
    ]
    spread = statistics.stdev(found) if len(found) > 1 else 0.0
    values = f"{min(lrs.values()):.3g} to {max(lrs.values()):.3g}"
    row = {"rate": name, "learning rates": values, ACCURACY: round(statistics.mean(found), 2)}
    return row | {"sd": round(spread, 2), "n": len(found)}


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
