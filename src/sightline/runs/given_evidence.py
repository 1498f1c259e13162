"""What an audit can use of a run without a model: predictions and features that its folder holds."""

from __future__ import annotations

import dataclasses

import numpy as np

from sightline.audit import Evidence
from sightline.data import Dataset
from sightline.errors import DamagedFileError
from sightline.predictions import read_predictions
from sightline.runs.artifacts import FEATURES, TRAIN_PREDICTIONS
from sightline.runs.run_folder import Run


def given_evidence(run: Run, data: Dataset) -> Evidence:
    """Return the evidence of predictions and features that were given."""
    train = None
    if (run.folder / TRAIN_PREDICTIONS).exists():
        train = read_predictions(run.folder / TRAIN_PREDICTIONS)
    features, train_features = read_given_features(run)
    return Evidence(
        data,
        run.predictions,
        train=train,
        features=features,
        train_features=train_features,
        seed=run.recipe.training.seed,
    )


def read_given_features(run: Run) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the features of test and training images that were given, (N, D) each; None where none were.

    Raises:
        DamagedFileError: The file cannot be read.
    """
    path = run.folder / FEATURES
    if not path.exists():
        return None, None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
            return found["test"], found.get("train")
    except Exception as error:  # a damaged archive can make numpy raise anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DamagedFileError(f"{path} holds no features ({reason}); inspect again") from None


def with_frozen(
    evidence: Evidence,
    frozen: tuple[np.ndarray, np.ndarray] | None,
    *,
    unseen: np.ndarray | None,
    others: np.ndarray | None,
) -> Evidence:
    """Return the evidence with what a frozen network adds; where it has no features, those stand in.

    Args:
        evidence: Of the model, or of its predictions.
        frozen: Features of test and training images, by a network that has not learned from their labels.
        unseen: (N_train, C) probabilities by fits that have not seen the image.
        others: (R, N, C) probabilities of other runs.
    """
    more = {"out_of_fold": unseen, "others": others}
    if frozen is None:
        return dataclasses.replace(evidence, **more)
    test, train = frozen[0], frozen[1] if len(frozen[1]) else None
    more |= {"frozen": test, "train_frozen": train}
    if evidence.features is None:
        more |= {"features": test, "train_features": train}
    return dataclasses.replace(evidence, **more)
