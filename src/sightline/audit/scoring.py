"""The audit's findings held against what was planted in generated data."""

from __future__ import annotations

import numpy as np

from sightline.audit.agreement import ListQuality, precision_recall
from sightline.audit.findings import Findings
from sightline.audit.planted import Finding
from sightline.data import PlantedTruth


def score_findings(truth: PlantedTruth, found: Findings) -> list[Finding]:
    """Return precision and recall of label suspects and leaks, and whether the shortcut was found."""
    scored = []
    lists = {"dynamics of training": found.train_suspects, "folds": found.fold_suspects}
    for source, suspects in lists.items():
        if suspects is not None:
            flagged = np.flatnonzero(suspects["issue"])
            share = len(truth.wrong_labels) / len(suspects)
            scored.append(
                Finding(
                    what=f"Suspicious training labels, from the {source}",
                    value=_quality(precision_recall(flagged, truth.wrong_labels)),
                    expected=f"precision {100 * share:.1f} % by chance",
                    meaning="The list of labels to check holds what was planted, and little else.",
                )
            )
    leaked = np.flatnonzero(found.duplicates.leaked)
    scored.append(
        Finding(
            what="Test images with a twin in training",
            value=_quality(precision_recall(leaked, truth.leaks[:, 0])),
            expected=f"{found.duplicates.chance:.1f} pairs by chance",
            meaning="Copies were planted exact, mirrored, brighter and noisy.",
        )
    )
    scored.append(_shortcut(truth, found))
    return scored


def _shortcut(truth: PlantedTruth, found: Findings) -> Finding:
    named = found.evidence.predictions.class_names[truth.shortcut_class]
    shortcuts = [one for one in found.slices if one.shortcut]
    expected = f"images called “{named}” with evidence in the top right corner"
    meaning = "The slices were searched without knowing of the mark; half of the images had no say in it."
    if not shortcuts:
        return Finding(what="The shortcut", value="not found", expected=expected, meaning=meaning)
    best = shortcuts[0]
    marked = np.flatnonzero(truth.shortcut_test)
    share = np.isin(best.rows, marked).mean()
    return Finding(
        what="The shortcut",
        value=f"found: {best.name}; {100 * share:.0f} % of them carry the mark",
        expected=expected,
        meaning=meaning,
    )


def _quality(quality: ListQuality) -> str:
    if not quality.found:
        return f"none found of {quality.planted} planted"
    return (
        f"{quality.hits} of {quality.planted} planted found (recall {100 * quality.recall:.0f} %), "
        f"{quality.found} listed (precision {100 * quality.precision:.0f} %)"
    )
