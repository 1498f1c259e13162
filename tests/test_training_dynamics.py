"""Margins and probabilities from the pass that trains: right values, in data order, resumed bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_training_trainer import AUGMENTATION, QUIET, make_data, make_model
from torch import nn
from training_cases import DieAfter, Killed, at_every_step

from sightline.data import ResidentBatches
from sightline.data.dataset import stratified_split
from sightline.errors import SightlineError
from sightline.predictions import Dynamics, load_dynamics, save_dynamics
from sightline.training import constant, fit
from sightline.training.callbacks import margin_and_probability


def same(first: Dynamics, second: Dynamics) -> None:
    np.testing.assert_array_equal(first.margin, second.margin)
    np.testing.assert_array_equal(first.probability, second.probability)


def test_margin_and_probability_are_those_of_each_image_by_itself():
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3
    labels = torch.arange(50) % 4
    found = margin_and_probability(logits, labels)
    for row, label, margin, probability in zip(logits.tolist(), labels.tolist(), *found, strict=True):
        assert float(margin) == pytest.approx(row[label] - max(row[:label] + row[label + 1 :]), rel=1e-6)
        assert float(probability) == pytest.approx(np.exp(row[label]) / np.exp(row).sum(), rel=1e-5)
    huge = margin_and_probability(torch.tensor([[1e8, 0.0], [0.0, 1e8]]), torch.tensor([0, 0]))
    assert huge.half().tolist() == [[65504, -65504], [1, 0]]


def test_the_dynamics_are_those_of_a_plain_loop_in_the_order_of_the_data(tmp_path):
    data = make_data()
    model, plain = make_model(data), make_model(data)
    history = fit(
        model,
        data,
        epochs=2,
        batch_size=16,
        seed=4,
        schedule=constant(0.1),
        augmentation=AUGMENTATION,
        **QUIET,
    )
    batches = ResidentBatches(
        data.train, batch_size=16, augmentation=AUGMENTATION, fill=data.mean.tolist(), seed=4, drop_last=False
    )
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    margin, probability = np.full((2, 50), np.nan), np.full((2, 50), np.nan)
    plain.train()
    for epoch in range(2):
        for images, labels, indices in batches.epoch(epoch):
            logits = plain(images)
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, labels).backward()
            optimizer.step()
            for index, label, row in zip(indices.tolist(), labels.tolist(), logits.tolist(), strict=True):
                margin[epoch, index] = row[label] - max(row[:label] + row[label + 1 :])
                probability[epoch, index] = np.exp(row[label]) / np.exp(row).sum()
    assert history.dynamics is not None
    assert history.dynamics.margin.dtype == history.dynamics.probability.dtype == np.float16
    np.testing.assert_allclose(history.dynamics.margin, margin, atol=2e-3)
    np.testing.assert_allclose(history.dynamics.probability, probability, atol=2e-3)
    hits = history.dynamics.correct.sum(axis=1)
    assert (hits / 50).tolist() == pytest.approx([row["train_accuracy"] for row in history.epochs])
    history.save(tmp_path)
    same(load_dynamics(tmp_path / "dynamics.npz"), history.dynamics)


def test_images_that_are_held_out_have_none():
    data = make_data(60)
    history = fit(make_model(data), data, epochs=2, batch_size=16, validation=0.25, seed=3, **QUIET)
    kept, held = stratified_split(data.train.labels, test_fraction=0.25, seed=3)
    assert history.dynamics is not None
    for values in (history.dynamics.margin, history.dynamics.probability, history.dynamics.correct):
        assert np.isnan(values[:, held]).all()
        assert np.isfinite(values[:, kept]).all()


@pytest.mark.parametrize("killed_after", [2, 4, 6])
def test_a_run_that_was_killed_goes_on_to_the_same_dynamics_bit_for_bit(tmp_path, killed_after):
    data = make_data()
    options = {"epochs": 3, "batch_size": 16, "augmentation": AUGMENTATION, "validation": 0.2, **QUIET}
    whole = fit(make_model(data), data, **options).dynamics
    with pytest.raises(Killed):
        fit(make_model(data), data, **options, callbacks=[at_every_step(tmp_path), DieAfter(killed_after)])
    resumed = fit(
        make_model(data), data, **options, callbacks=[at_every_step(tmp_path, resume=True)]
    ).dynamics
    assert whole is not None
    assert resumed is not None
    assert resumed.epochs == 3
    same(resumed, whole)
    again = fit(
        make_model(data), data, **options, callbacks=[at_every_step(tmp_path, resume=True)]
    ).dynamics  # nothing was left to do
    assert again is not None
    same(again, whole)


def test_a_file_that_is_missing_or_damaged_is_one_line(tmp_path):
    path = tmp_path / "dynamics.npz"
    with pytest.raises(SightlineError, match=r"dynamics.npz is missing; training writes it"):
        load_dynamics(path)
    save_dynamics(path, Dynamics(np.zeros((2, 3), np.float16), np.ones((2, 3), np.float16)))
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(SightlineError, match="does not hold training dynamics"):
        load_dynamics(path)
    np.savez(path, margin=np.zeros((2, 3)))
    with pytest.raises(SightlineError, match=r"does not hold training dynamics .*probability"):
        load_dynamics(path)
    with pytest.raises(SightlineError, match=r"margin is \(2, 3\) and probability \(3, 2\)"):
        Dynamics(np.zeros((2, 3)), np.zeros((3, 2)))
