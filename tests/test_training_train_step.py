"""Objectives for unequal classes, against the formulas and scikit-learn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from training_cases import QUIET, make_data, make_model, state

from sightline.data import Split
from sightline.errors import InputError
from sightline.training import Objective, constant, fit, load_recipe
from sightline.training.train_step import balanced_weights, log_prior, mixup, train_step

LABELS = np.repeat([0, 1, 2], [40, 8, 2])


def batch(count: int = 24):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, generator=generator), torch.randint(3, (count,), generator=generator)


def test_balanced_weights_are_those_of_scikit_learn():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert balanced_weights(LABELS, 3) == pytest.approx(expected)
    assert np.mean(np.array(balanced_weights(LABELS, 4))[LABELS]) == pytest.approx(1)  # a class is empty


def test_a_weighted_loss_is_the_mean_over_images_and_the_parts_of_a_batch_add_up_to_it():
    logits, labels = batch()
    weights = balanced_weights(LABELS, 3)
    objective = Objective(class_weights=weights)
    slow = 0.0
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        slow += weights[label] * float(row.exp().sum().log() - row[label]) / len(labels)
    whole = objective.of_batch(logits, labels)
    assert float(whole) == pytest.approx(slow, rel=1e-6)
    parts = [
        (7, objective.of_batch(logits[:7], labels[:7])),
        (17, objective.of_batch(logits[7:], labels[7:])),
    ]
    assert float(sum(size / 24 * part for size, part in parts)) == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_logit_adjustment_is_the_loss_of_the_paper(tau):
    logits, labels = batch()
    prior = np.bincount(LABELS) / len(LABELS)
    found = Objective(adjustment=log_prior(LABELS, 3, tau=tau)).of_batch(logits, labels)
    slow = 0.0
    for row, label in zip(logits.double().numpy(), labels.tolist(), strict=True):
        others = sum(
            (prior[other] / prior[label]) ** tau * np.exp(row[other] - row[label])
            for other in range(3)
            if other != label
        )
        slow += np.log(1 + others) / len(labels)  # equation 10
    assert float(found) == pytest.approx(slow, rel=1e-6)


def unequal(count: int = 240):
    """Of the classes, the first ones are many and the last one few."""
    data = make_data(count, 60)
    labels = data.train.labels
    keep = np.sort(np.concatenate([np.flatnonzero(labels == c)[: 40 // (1 + 3 * c) + 2] for c in range(10)]))
    return dataclasses.replace(data, train=Split(data.train.images[keep], labels[keep]))


def test_a_recipe_says_what_becomes_of_unequal_classes():
    data = unequal()
    changes = ["training.class_weights=balanced"]
    made = load_recipe("shapes-quick", changes).make_objective(data)
    assert made.class_weights == balanced_weights(data.train.labels, data.num_classes)
    made = load_recipe("shapes-quick", ["training.logit_adjustment=0.5"]).make_objective(data)
    assert made.adjustment == log_prior(data.train.labels, data.num_classes, tau=0.5)
    first = data.class_names[0]
    table = load_recipe("shapes-quick", [f"training.class_weights={{ {first} = 3.0 }}"])
    assert table.make_objective(data).class_weights == (3.0, *[1.0] * (data.num_classes - 1))
    unknown = load_recipe("shapes-quick", ["training.class_weights={ zebra = 3.0 }"])
    with pytest.raises(InputError, match=r"training.class_weights: no class is called 'zebra'"):
        unknown.make_objective(data)
    plain = load_recipe("shapes-quick").make_objective(data)
    assert plain.class_weights == plain.adjustment == ()


def test_equal_weights_and_a_flat_prior_train_to_the_same_weights():
    data = make_data()
    models = [make_model(data) for _ in range(2)]
    flat = Objective(adjustment=(0.7,) * data.num_classes)
    options = {"epochs": 1, "batch_size": 12, "schedule": constant(0.05), **QUIET}
    histories = [
        fit(model, data, objective=objective, **options)
        for model, objective in zip(models, [Objective(), flat], strict=True)
    ]
    for key, tensor in state(models[0]).items():
        torch.testing.assert_close(state(models[1])[key], tensor, rtol=1e-4, atol=1e-5)
    losses = [history.epochs[0]["train_loss"] for history in histories]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # the history has the plain loss


@pytest.mark.parametrize("parts", [2, 3, 7, 50])
def test_a_batch_in_parts_has_the_loss_and_the_gradient_of_the_whole(parts):
    torch.manual_seed(0)
    images, labels = torch.rand(10, 3, 4, 4), torch.arange(10) % 3
    mixed = mixup(alpha=1.0)(images, np.random.default_rng(0))
    objective = Objective(label_smoothing=0.1, l1=1e-3, class_weights=(1.0, 2.0, 0.5))
    results = []
    for number in (1, parts):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        loss, logits = train_step(
            model, optimizer, mixed.images, labels,
            precision="float32", objective=objective, mixed=mixed, weight=0.7, parts=number,
        )  # fmt: skip
        results.append((loss, logits, model[1].weight, model[1].bias))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "changes",
    [
        ["training.class_weights=balanced", "training.logit_adjustment=0.5"],
        ["training.sampler=balanced", "training.logit_adjustment=0.5"],
        ["training.class_weights=balanced", "training.sampler=balanced"],
    ],
)
def test_unequal_classes_are_corrected_for_once(changes):
    with pytest.raises(InputError, match="each of which corrects for unequal classes by itself; keep one"):
        load_recipe("shapes-quick", changes).make_objective(make_data())
