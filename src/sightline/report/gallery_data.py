"""The galleries of the report as columns: every test image, and the training images that matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sightline.report.audit_files import AuditFiles
from sightline.report.links import class_keys
from sightline.report.load import ReportData
from sightline.report.payload import (
    MOST_TRAIN,
    TEST_PIXELS,
    TRAIN_PIXELS,
    Columns,
    Payload,
    add_colors,
    add_maps,
    add_sprites,
    kept_tests,
    reduced_maps,
)
from sightline.report.sprites import make_sprites
from sightline.report.wording import page_name, short_name

_TOP = 5
_EPOCHS = 64  # points of a curve; of a longer training every k-th epoch is shown


def gallery_payload(data: ReportData) -> Payload:
    """Return what the script of the page needs of a run with an audit."""
    audit = data.audit
    assert audit is not None
    columns, blobs = Columns(), {}
    tests, trains = kept_tests(data), _kept_trainings(audit)
    add_colors(columns)
    _add_tests(columns, data, audit, tests)
    epochs = _add_trainings(columns, audit, trains)
    grids = _add_maps(columns, data, audit, tests)
    _add_neighbours(columns, audit)
    kept = np.argsort(audit.arrays["train_rows"], kind="stable")
    place = kept[np.searchsorted(audit.arrays["train_rows"], trains, sorter=kept)]
    train_pictures = audit.arrays["train_thumbnails"][place]
    manifest = {
        "names": [page_name(name) for name in data.class_names],
        "keys": class_keys(data.class_names),
        "run": data.name,
        "layer": data.main_layer,
        "tests": len(data.predictions),
        "trainings": len(audit.train),
        "epochs": epochs,
        "grids": grids,
        "slices": [_slice(one) for one in audit.facts.get("slices", ())],
        "fixes": [_fix(one) for one in audit.facts.get("fixes", ())],
        "data": data.data.get("fingerprint"),
        "sprites": {
            "test": add_sprites(
                blobs, "test", make_sprites(audit.arrays["thumbnails"][tests], most_pixels=TEST_PIXELS)
            ),
            "train": add_sprites(blobs, "train", make_sprites(train_pictures, most_pixels=TRAIN_PIXELS)),
        },
        "columns": columns.places,
    }
    return Payload(manifest, {"columns": columns.base64, **blobs})


def _slice(facts: dict[str, Any]) -> dict[str, str]:
    return {"name": short_name(str(facts["name"]), most=120), "evidence": str(facts.get("evidence", ""))}


def _fix(facts: dict[str, Any]) -> dict[str, Any]:
    images = [int(index) for index in facts.get("images", ())]
    return {
        "title": short_name(str(facts["title"]), most=120),
        "split": facts.get("split", "test"),
        "images": images,
    }


def _add_tests(columns: Columns, data: ReportData, audit: AuditFiles, rows: np.ndarray) -> None:
    table = audit.test.iloc[rows]
    columns.add_integers("test.index", rows)
    for name in ("label", "predicted", "suggested", "slice", "twin", "set_size"):
        columns.add_integers(f"test.{name}", table[name].to_numpy())
    for name in ("loss", "confidence", "margin", "ambiguity", "suspicion"):
        columns.add_floats(f"test.{name}", table[name].to_numpy())
    causes = pd.Categorical(table["cause"].fillna(""), categories=["", *CAUSES])
    columns.add("test.cause", np.maximum(np.asarray(causes.codes), 0).astype(np.uint8))
    kinds = pd.Categorical(table["difficulty"], categories=["", *KINDS])
    columns.add("test.difficulty", np.maximum(np.asarray(kinds.codes), 0).astype(np.uint8))
    shares = data.predictions.probabilities[rows]  # (N, C)
    best = np.argsort(-shares, axis=1, kind="stable")[:, :_TOP]
    columns.add_integers("test.top", best)
    columns.add("test.top_share", np.rint(65535 * np.take_along_axis(shares, best, axis=1)).astype(np.uint16))


# The order is that of the page: what can be mended first comes first.
KINDS = ("ambiguous", "hard but right", "easy but wrong")
CAUSES = ("label suspect", "leaked twin", "shortcut", "ambiguous", "confused pair", "unexplained")


def _add_trainings(columns: Columns, audit: AuditFiles, rows: np.ndarray) -> int:
    """Add the training images of the page; return how many points their curves have."""
    table = audit.train.iloc[rows]
    columns.add_integers("train.index", rows)
    for name in ("label", "suggested", "twin"):
        columns.add_integers(f"train.{name}", table[name].to_numpy())
    for name in ("suspicion", "aum", "forgetting", "p_mean", "p_std"):
        columns.add_floats(f"train.{name}", table[name].to_numpy())
    if audit.probability is None or not len(audit.probability):
        return 0
    step = -(-len(audit.probability) // _EPOCHS)
    curves = audit.probability[::step][:, rows].T.astype(np.float32)  # (R, E)
    shown = np.where(np.isfinite(curves), np.rint(254 * np.clip(curves, 0, 1)), 255)
    columns.add("train.curve", shown.astype(np.uint8))
    columns.add_integers("epoch", np.arange(1, len(audit.probability) + 1, step))
    return curves.shape[1]


def _add_maps(
    columns: Columns, data: ReportData, audit: AuditFiles, rows: np.ndarray
) -> dict[str, list[int]]:
    """Add the maps for the predicted class, and for the true class where it is another; return their size."""
    if "maps_predicted" not in audit.arrays:
        return {}
    wrong = rows[~data.predictions.correct[rows]]
    number = len(rows) + len(wrong)
    predicted = reduced_maps(audit.arrays["maps_predicted"][rows], number)
    add_maps(columns, "predicted", predicted)
    add_maps(columns, "true", reduced_maps(audit.arrays["maps_true"][wrong], number))
    return {name: list(predicted.shape[1:]) for name in ("predicted", "true")}


def _add_neighbours(columns: Columns, audit: AuditFiles) -> None:
    if "neighbours" not in audit.arrays:
        return
    columns.add_integers("neighbour.row", audit.arrays["neighbour_rows"])
    columns.add_integers("neighbour.index", audit.arrays["neighbours"])
    columns.add_floats("neighbour.similarity", audit.arrays["neighbour_similarity"])


def suspects_of(audit: AuditFiles, split: str) -> list[int]:
    """Return the images of a split whose label is suspected, the most suspicious first."""
    found = (audit.facts.get("suspects") or {}).get(split) or {}
    return [int(row["index"]) for row in found.get("top", ())]


def _kept_trainings(audit: AuditFiles) -> np.ndarray:
    """Return the training images of the page in ascending order.

    Those that a fix, a suspicion or a pair names come first, then neighbours of the costliest mistakes.
    """
    arrays, facts = audit.arrays, audit.facts
    named: list[int] = []
    for fix in facts.get("fixes") or ():
        named += fix.get("images", ()) if fix.get("split") == "train" else ()
    named += suspects_of(audit, "train")
    for pair in facts.get("duplicates", {}).get("pairs", ()):
        named += [pair[side] for side in ("a", "b") if pair[f"{side}_split"] == "train"]
    order = [np.asarray(named, np.int64), audit.test["twin"].to_numpy(np.int64)]
    if "neighbours" in arrays:
        by_cost = np.argsort(-audit.test["loss"].to_numpy()[arrays["neighbour_rows"]], kind="stable")
        order.append(arrays["neighbours"][by_cost].ravel().astype(np.int64))
    order.append(arrays["train_rows"].astype(np.int64))
    wanted = pd.unique(np.concatenate(order))
    pictured = wanted[np.isin(wanted, arrays["train_rows"])]
    return np.sort(pictured[:MOST_TRAIN])
