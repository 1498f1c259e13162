"""A linear probe: the body of a model stays as it is, its last layer becomes a logistic regression.

    model = create_model("efficientnet_lite0", data)
    found = probe(model, data)
    found.predictions, found.out_of_fold      # of the test split, and of the training split, each by folds

Features are computed once and kept on disk. How strongly the regression is held back is chosen by
cross-validation on the training split; the probabilities of its held-out parts say, for each training image,
what a model believes that has not seen it.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import threadpoolctl
import torch
from torch import nn

from sightline import logs
from sightline.data import Dataset
from sightline.data.picture_cache import cache_folder
from sightline.data.splits import fold_indices
from sightline.errors import InputError
from sightline.models import choose_device
from sightline.predictions import Predictions
from sightline.predictions.features import cached_features, linear_head
from sightline.training.history import History

log = logging.getLogger(__name__)

ClassWeights = Literal["none", "balanced"]
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""C of scikit-learn, for features of mean 0 and variance 1: the smaller, the stronger the penalty."""

_FLOOR = 1e-12  # probability of a class that a part of the data does not have


@dataclass(frozen=True, eq=False)
class Probe:
    """What a probe found; the model itself has the new head.

    Attributes:
        predictions: Of the test split.
        out_of_fold: Of the training split: each row by the regression that was fitted without its part.
        strength: The C that was chosen.
        losses: Mean cross-entropy out of fold, in nats, by C.
        folds: How many parts the training split was dealt out in.
        history: One epoch, for the files of a run.
    """

    predictions: Predictions
    out_of_fold: Predictions
    strength: float
    losses: dict[float, float]
    folds: int
    history: History


def probe(
    model: nn.Module,
    data: Dataset,
    *,
    folds: int = 5,
    strengths: Sequence[float] = STRENGTHS,
    class_weights: ClassWeights = "none",
    cache: str | Path | None = "auto",
    precision: str = "float32",
    device: str = "auto",
    seed: int = 0,
) -> Probe:
    """Fit the last linear layer of `model`, in place, as a multinomial logistic regression.

    Args:
        model: Ends with an `nn.Linear` on one vector per image, as every backbone here does.
        data: Where its training split has a column `group`, no group is in two folds.
        folds: Parts of like classes, of which each is held out once.
        strengths: Values of C to choose from, by the cross-entropy out of fold; see `STRENGTHS`.
        class_weights: "balanced" counts each class the same, however many images it has.
        cache: The folder of the features; "auto" for that of the package, None for none.
        precision: "float32" or "bfloat16", of the body.
        device: "auto", "cpu", "cuda" and so on, of the body.
        seed: Of the folds.

    Raises:
        InputError: Another model, or a value that does not fit.
    """
    began = time.perf_counter()
    _check(folds, strengths, class_weights)
    data.check_trainable()
    model.to(choose_device(device))
    head = probe_head(model, data)
    where = cache_folder("features") if cache == "auto" else None if cache is None else Path(cache)
    how: dict[str, Any] = {"class_names": data.class_names, "cache": where, "precision": precision}
    train, test = (cached_features(model, split, **how) for split in (data.train, data.test))
    seconds = time.perf_counter() - began
    labels, options = data.train.labels, {"weights": class_weights, "classes": data.num_classes}
    with logs.stage("logistic regression"), threadpoolctl.threadpool_limits(1):  # products too small to share
        groups = data.train.groups
        parts = fold_indices(labels, folds, seed=seed, groups=groups, rare=True)
        losses, best, unseen = _chosen(train, labels, parts, strengths, **options)
        weight, bias = _Fit(train, labels, **options).at(best)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    chosen = Predictions(np.log(unseen), labels, data.class_names)
    pair = [
        Predictions((rows @ weight.T + bias).astype(np.float32), split.labels, data.class_names)
        for rows, split in ((train, data.train), (test, data.test))
    ]
    history = _history(pair[0], pair[1], time.perf_counter() - began, len(train) / max(seconds, 1e-9))
    log.info(
        "logistic regression on %d features, C = %g by %d folds: accuracy %.2f %% out of fold",
        *(train.shape[1], best, len(parts), 100 * chosen.correct.mean()),
    )
    return Probe(pair[1], chosen, best, losses, len(parts), history)


def fold_probabilities(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    folds: int = 5,
    groups: np.ndarray | None = None,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> np.ndarray:
    """Return the probabilities (N, C) of each row by a logistic regression that was fitted without its part.

    Args:
        features: (N, D), of a network that has not learned from these labels.
        labels: (N,) integers from 0 on.
        classes: C.
        folds: Parts of like classes, of which each is held out once.
        groups: (N,), none is in two folds.
        strengths: As of `probe`.
        seed: Of the folds.

    Raises:
        InputError: Another number of rows, or folds that do not fit.
    """
    _check(folds, strengths, "none")
    if features.ndim != 2 or len(features) != len(labels):
        raise InputError(f"features are {features.shape}; {len(labels)} labels need ({len(labels)}, D)")
    with logs.stage("logistic regression"), threadpoolctl.threadpool_limits(1):
        parts = fold_indices(labels, folds, seed=seed, groups=groups, rare=True)
        _, best, unseen = _chosen(features, labels, parts, strengths, weights="none", classes=classes)
    right = 100 * (unseen.argmax(axis=1) == labels).mean()
    log.info("probe on %d features by %d folds, C = %g: accuracy %.2f %% out of fold",
             *(features.shape[1], len(parts), best, right))  # fmt: skip
    return unseen


def probe_head(model: nn.Module, data: Dataset) -> nn.Linear:
    """Return the layer that a probe fits, or raise InputError if the model has none that would do."""
    head = linear_head(model, data.train)
    has_bias = head.bias is not None
    if head.out_features != data.num_classes or not has_bias:
        raise InputError(
            f"the last linear layer has {head.out_features} outputs and {'a' if has_bias else 'no'} bias; "
            f"a probe of {data.num_classes} classes needs {data.num_classes}, with a bias"
        )
    return head


def _check(folds: int, strengths: Sequence[float], class_weights: str) -> None:
    if folds < 2:
        raise InputError(f"folds is {folds}; cross-validation needs 2 or more")
    if not strengths or min(strengths) <= 0 or sorted(set(strengths)) != list(strengths):
        raise InputError(f"strengths are {tuple(strengths)}; they need numbers above 0, ascending")
    if class_weights not in ("none", "balanced"):
        raise InputError(f"class_weights is {class_weights!r}; known: none, balanced")


def _chosen(
    features: np.ndarray,
    labels: np.ndarray,
    parts: list[tuple[np.ndarray, np.ndarray]],
    strengths: Sequence[float],
    *,
    weights: str,
    classes: int,
) -> tuple[dict[float, float], float, np.ndarray]:
    """Losses by strength, the best one, and its probabilities (N, C) of each row by the fit without its part.

    Strengths are tried from the smallest C, and no further once two in a row were worse than the best.
    """
    fits = [_Fit(features[rest], labels[rest], weights=weights, classes=classes) for rest, _ in parts]
    importance, losses, best, unseen = _sample_weights(labels, weights), {}, strengths[0], np.empty(0)
    for number, strength in enumerate(strengths):
        table = np.empty((len(labels), classes))
        for fit, (_, held) in zip(fits, parts, strict=True):
            weight, bias = fit.at(strength)
            logits = (features[held] @ weight.T + bias).astype(np.float64)
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            table[held] = np.maximum(exponentials / exponentials.sum(axis=1, keepdims=True), _FLOOR)
        losses[strength] = float(np.average(_loss(table, labels), weights=importance))
        if losses[strength] <= losses[best]:
            best, unseen = strength, table
        elif number - list(strengths).index(best) == 2:
            break
    return losses, best, unseen


class _Fit:
    """Logistic regressions on the same rows, each starting from the one before."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, *, weights: str, classes: int) -> None:
        from sklearn.linear_model import LogisticRegression

        self.mean, self.spread = features.mean(axis=0), features.std(axis=0)
        self.spread[self.spread == 0] = 1
        self.scaled, self.labels, self.classes = (features - self.mean) / self.spread, labels, classes
        balanced = "balanced" if weights == "balanced" else None
        self.regression = LogisticRegression(class_weight=balanced, max_iter=300, tol=1e-3, warm_start=True)

    def at(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """The matrix (C, D) and the bias (C,) on the features as they are; the fit is on scaled ones."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 300 steps are enough for what is chosen out of fold
            self.regression.set_params(C=strength).fit(self.scaled, self.labels)
        own, offset = self.regression.coef_, self.regression.intercept_
        if len(own) == 1:  # of two classes: the same softmax with a logit for each
            own, offset = np.concatenate([-own, own]) / 2, np.concatenate([-offset, offset]) / 2
        weight = np.zeros((self.classes, len(self.mean)), np.float32)
        bias = np.full(self.classes, np.log(_FLOOR), np.float32)  # of a class without an image
        weight[self.regression.classes_] = own / self.spread
        bias[self.regression.classes_] = offset - (own / self.spread) @ self.mean
        return weight, bias


def _loss(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return -np.log(probabilities[np.arange(len(labels)), labels])


def _sample_weights(labels: np.ndarray, class_weights: str) -> np.ndarray:
    counts = np.bincount(labels)
    return 1 / counts[labels] if class_weights == "balanced" else np.ones(len(labels))


def _history(train: Predictions, test: Predictions, seconds: float, speed: float) -> History:
    """One epoch, of the fit that was kept. It has no learning rate, which is 0."""
    row: dict[str, float | int] = {"epoch": 1, "lr": 0.0}
    for word, table in (("train", train), ("test", test)):
        row |= {f"{word}_loss": float(table.loss.mean()), f"{word}_accuracy": float(table.correct.mean())}
    row |= {"seconds": seconds, "images_per_second": speed}
    step = {"step": 1, "epoch": 1, "lr": 0.0, "loss": row["train_loss"]}
    return History(epochs=[row], steps=[step], kept=1)
