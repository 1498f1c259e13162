"""What the audit says of labels, held against wrong labels that were planted.

    SIGHTLINE_CIFAR10=DIR python benchmarks/truth.py [ROW ...] [--json truth.json]

Rows: test, photos, train, clean, shares, demo; without a name all. A row that stands in the JSON file is not
measured again; features are cached (SIGHTLINE_CACHE). On CIFAR-10, of which a part is taken, 128 pixels wide
for the frozen features of `efficientnet_lite0`. Labels that were wrong before count as right.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import hardware

import sightline as sl
from sightline.audit import LinearWitness, judge_labels
from sightline.audit.ground_truth import average_precision
from sightline.audit.inputs import Evidence
from sightline.audit.label_claims import JudgedLabels, judge_test_labels, judge_train_labels, plant_labels
from sightline.data import Dataset
from sightline.predictions import Predictions
from sightline.predictions.features import frozen_features, predict_features
from sightline.runs.run_folder import fit_options, recipe_model
from sightline.training import fit, load_recipe

_ALIKE = {0: 8, 1: 9, 2: 4, 3: 5, 4: 7, 5: 3, 6: 3, 7: 4, 8: 0, 9: 1}  # of CIFAR-10, one class for each


def cifar(train: int, test: int) -> Dataset:
    data = sl.load_data("cifar10", data_dir=os.environ["SIGHTLINE_CIFAR10"])
    rng = np.random.default_rng(0)
    rows = [rng.permutation(len(split))[:count] for split, count in ((data.train, train), (data.test, test))]
    return dataclasses.replace(data, train=data.train.take(rows[0]), test=data.test.take(rows[1]))


def spoil(labels: np.ndarray, share: float, kind: str, seed: int) -> np.ndarray:
    """The labels with a share of them wrong: "uniform", or "confused" with the class that is most alike."""
    rng, made = np.random.default_rng(seed), labels.copy()
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    if kind == "confused":
        made[rows] = [_ALIKE[int(label)] for label in labels[rows]]
    else:
        made[rows] = (labels[rows] + rng.integers(1, 10, len(rows))) % 10
    return made


def scored(judged: JudgedLabels, wrong: np.ndarray) -> dict[str, Any]:
    """How good a list is, and whether what is said of it is true."""
    flagged, order = judged.flagged, np.argsort(judged.table["label_quality"], kind="stable").to_numpy()
    truth = float(wrong[flagged].mean()) if flagged.any() else None
    said = judged.precision
    return {
        "average precision": average_precision(order, np.flatnonzero(wrong)),
        "flagged": int(flagged.sum()),
        "precision": truth,
        "recall": float(flagged[wrong].mean()) if wrong.any() else None,
        "said": None if said is None else [said.value, *said.interval],
        "inside": None if said is None or truth is None else said.interval[0] <= truth <= said.interval[1],
        "claim": judged.claim.value,
    }


class _Epochs(sl.Callback):
    """Features of the training images after each epoch, with the averaged weights left aside."""

    def __init__(self, data: Dataset) -> None:
        self.data, self.features = data, []

    def on_epoch_end(self, trainer: Any) -> None:
        self.features.append(predict_features(trainer.model, self.data.train)[1])


def trained(data: Dataset, recipe: str = "cifar10-quick", *, seed: int = 0) -> tuple[Any, list[np.ndarray]]:
    """The model of a recipe on `data`, and the training images' features untrained and after each epoch."""
    chosen = load_recipe(recipe, [f"training.seed={seed}"])
    model, epochs = recipe_model(chosen, data), _Epochs(data)
    first = predict_features(model, data.train, class_names=data.class_names)[1]
    options = fit_options(chosen, data, choosing=False)
    options["callbacks"] = [*options.get("callbacks", ()), epochs]
    fit(model, data, **options, device="cpu", verbose=False)
    return model, [first, *epochs.features]


def row_test(data: Dataset, seeds: int = 3) -> list[dict[str, Any]]:
    """2 % planted in the test split, and none: the model alone, and with a probe on frozen features."""
    model, _ = trained(data)
    answers = sl.predict(model, data.test, class_names=data.class_names)
    test, train = frozen_features(data)
    found = []
    for share in (0.02, 0.0):
        for seed in range(seeds if share else 1):
            labels = spoil(data.test.labels, share, "uniform", seed)
            spoilt = dataclasses.replace(data, test=dataclasses.replace(data.test, labels=labels))
            p = Predictions(answers.logits, labels, data.class_names)
            wrong = labels != data.test.labels
            alone = scored(judge_test_labels(Evidence(spoilt, p)), wrong)
            judged = judge_test_labels(Evidence(spoilt, p, frozen=test, train_frozen=train))
            found.append(
                {"share": share, "seed": seed, "alone": alone["average precision"], **scored(judged, wrong)}
            )
    return found


def row_photos(data: Dataset, seeds: int = 5) -> list[dict[str, Any]]:
    """3 % planted in 1,500 training pictures, judged by a probe on frozen features."""
    features, found = frozen_features(data)[1][:1500], []
    witness = LinearWitness(features)
    for seed in range(seeds):
        labels = spoil(data.train.labels[:1500], 0.03, "uniform", seed)
        wrong = labels != data.train.labels[:1500]
        verdict = judge_labels(labels, [witness.unseen(labels, classes=10)])
        order = np.argsort(verdict.margin, kind="stable")
        flagged = verdict.flagged
        found.append(
            {
                "seed": seed,
                "of the first 45": int(wrong[order[:45]].sum()),
                "flagged": int(flagged.sum()),
                "precision": float(wrong[flagged].mean()) if flagged.any() else None,
                "recall": float(flagged[wrong].mean()),
            }
        )
    return found


def row_train(data: Dataset, seeds: int = 3) -> list[dict[str, Any]]:
    """Wrong training labels at four rates, by a probe on frozen features; relabelled as is proposed."""
    test, train = frozen_features(data)
    found = []
    for kind in ("uniform", "confused"):
        for share in (0.01, 0.03, 0.1, 0.4):
            for seed in range(seeds):
                labels = spoil(data.train.labels, share, kind, seed)
                spoilt = dataclasses.replace(data, train=dataclasses.replace(data.train, labels=labels))
                p = Predictions(np.zeros((len(data.test), 10)), data.test.labels, data.class_names)
                judged = judge_train_labels(Evidence(spoilt, p, frozen=test, train_frozen=train))
                assert judged is not None
                wrong = labels != data.train.labels
                after = np.where(judged.flagged, judged.table["suggested"], labels)
                left = int((after != data.train.labels).sum())
                more = {"wrong before": int(wrong.sum()), "wrong after": left}
                found.append({"kind": kind, "share": share, "seed": seed, **scored(judged, wrong), **more})
    return found


def row_clean(data: Dataset, seeds: int = 1) -> list[dict[str, Any]]:
    """Flagged on clean labels: untrained, after each epoch of a recipe, and by frozen features."""
    found = []
    for recipe in ("cifar10-quick",):
        for epoch, features in enumerate(trained(data, recipe)[1]):
            verdict = judge_labels(
                data.train.labels, [LinearWitness(features).unseen(data.train.labels, classes=10)]
            )
            learnt = verdict.noise.learnt
            found.append(
                {"model": recipe, "epoch": epoch, "flagged": int(verdict.flagged.sum()), "learnt": learnt}
            )
    unseen = LinearWitness(frozen_features(data)[1]).unseen(data.train.labels, classes=10)
    verdict = judge_labels(data.train.labels, [unseen])
    flagged, learnt = int(verdict.flagged.sum()), verdict.noise.learnt
    return [*found, {"model": "frozen features", "epoch": None, "flagged": flagged, "learnt": learnt}]


def row_shares(data: Dataset, seeds: int = 20) -> list[dict[str, Any]]:
    """The share of the flagged labels that is said to be wrong, against the truth: read off, and measured."""
    test, train = frozen_features(data)
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng(100 + seed)
        count, share = int(rng.choice([1500, len(data.train)])), float(rng.choice([0.02, 0.05, 0.1, 0.2]))
        kind = str(rng.choice(["uniform", "confused"]))
        part = dataclasses.replace(data, train=data.train.take(np.arange(count)))
        labels = spoil(part.train.labels, share, kind, seed)
        wrong = labels != part.train.labels
        part = dataclasses.replace(part, train=dataclasses.replace(part.train, labels=labels))
        p = Predictions(np.zeros((len(data.test), 10)), data.test.labels, data.class_names)
        judged = judge_train_labels(Evidence(part, p, frozen=test, train_frozen=train[:count]))
        assert judged is not None
        after = plant_labels(judged, classes=10, seed=seed)
        measured = scored(after, wrong)
        recall = None if after.planted is None else after.planted.recall.value
        row = {"images": count, "share": share, "kind": kind, "seed": seed, **scored(judged, wrong)}
        found.append(
            {
                **row,
                "checked": measured["said"],
                "checked inside": measured["inside"],
                "recall by planting": recall,
            }
        )
    return found


def row_demo(_: Dataset, seeds: int = 2) -> list[dict[str, Any]]:
    """The embedded data with its shortcut: what its own page says next to what was planted."""
    found = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            changes = [f"training.seed={seed}", f"data.seed={seed}"]
            run = sl.run("shapes-quick", changes=changes, out=Path(folder) / "run", verbose=False)
            audit, truth = run.audit, run.data().truth
        assert truth is not None
        flagged = audit.train.index[audit.train["flagged"]]
        hits = int(np.isin(flagged, truth.wrong_labels).sum())
        test = audit.result.label_issues.test
        found.append(
            {
                "seed": seed,
                "test labels called wrong": test.flagged,
                "training labels flagged": len(flagged),
                "of them planted": hits,
                "planted": len(truth.wrong_labels),
            }
        )
    return found


ROWS: dict[str, Callable[[Dataset], list[dict[str, Any]]]] = {
    "photos": row_photos,
    "test": row_test,
    "train": row_train,
    "clean": row_clean,
    "shares": row_shares,
    "demo": row_demo,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--train", type=int, default=6000, help="training images of CIFAR-10")
    parser.add_argument("--test", type=int, default=3000, help="test images")
    parser.add_argument("--json", type=Path, default=Path("truth.json"))
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    kept = json.loads(options.json.read_text()) if options.json.exists() else {"rows": {}}
    data = cifar(options.train, options.test)
    for name in options.rows or ROWS:
        if name not in kept["rows"]:
            began = time.perf_counter()
            found = ROWS[name](data)
            kept["rows"][name] = {"found": found, "seconds": round(time.perf_counter() - began, 1)}
            kept |= {"images": [options.train, options.test], "hardware": hardware("cpu")}
            options.json.write_text(json.dumps(kept, indent=1) + "\n")
        for row in kept["rows"][name]["found"]:
            print(name, json.dumps(row))


if __name__ == "__main__":
    main()
