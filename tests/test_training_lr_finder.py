"""The range test: suggestions on a loss whose answer is known, and nothing left behind."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from test_training_fit import make_data, make_model
from torch import nn

from sightline.errors import SightlineError
from sightline.training import RangeTest, find_learning_rate, sgd

OPTIONS = {"batch_size": 16, "precision": "float32", "device": "cpu"}


def test_suggestions_of_a_known_curve():
    lr = np.geomspace(1e-4, 10, 101)
    x = np.log10(lr)
    loss = 2.3 - 1.5 / (1 + np.exp(-4 * (x + 1.5))) + np.where(x > 0, 3 * x**2, 0)  # steepest at 10**-1.5
    found = RangeTest(lr, loss, loss).suggestions
    assert found["steepest"] == pytest.approx(10**-1.5, rel=0.06)
    assert found["minimum/10"] == pytest.approx(lr[loss.argmin()] / 10)


def test_the_mean_is_the_debiased_one_of_adam():
    data = make_data()
    found = find_learning_rate(make_model(data), data, steps=20, high=1.0, smoothing=0.9, **OPTIONS)
    running = 0.0
    for i, loss in enumerate(found.loss):
        running = 0.9 * running + 0.1 * loss
        assert found.smoothed[i] == pytest.approx(running / (1 - 0.9 ** (i + 1)))
    np.testing.assert_allclose(found.lr, np.geomspace(1e-5, 1.0, 20)[: len(found.lr)])


def test_model_and_random_state_are_left_bit_for_bit():
    data = make_data()
    model = make_model(data, dropout=0.5)
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first = find_learning_rate(model, data, steps=15, **OPTIONS)
    again = find_learning_rate(model, data, steps=15, **OPTIONS)
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value)
    assert torch.equal(state, torch.get_rng_state())
    assert (model.training, model[2].training) == (True, False)
    assert all(p.grad is None for p in model.parameters())
    np.testing.assert_array_equal(first.loss, again.loss)


def test_it_stops_where_the_loss_runs_away():
    data = make_data()
    found = find_learning_rate(
        make_model(data), data, high=1e6, steps=60, optimizer=sgd(momentum=0.9), **OPTIONS
    )
    assert len(found.lr) < 60
    assert np.isfinite(found.smoothed).all()
    assert found.suggestions["steepest"] < 100


def test_wrong_use_is_one_line():
    data = make_data()
    with pytest.raises(SightlineError, match="use 0 < low < high and at least 10 steps"):
        find_learning_rate(make_model(data), data, low=1.0, high=0.1, **OPTIONS)
    broken = make_model(data)
    nn.init.constant_(broken[7].weight, 1e30)
    with pytest.raises(SightlineError, match="the loss was not finite after"):
        find_learning_rate(broken, data, low=1e20, high=1e30, **OPTIONS)


def test_it_is_saved_as_a_table_and_its_suggestions(tmp_path):
    lr = np.geomspace(1e-3, 1, 12)
    found = RangeTest(lr, np.linspace(3, 1, 12), np.linspace(3, 1, 12))
    found.save(tmp_path)
    np.testing.assert_allclose(pd.read_csv(tmp_path / "range_test.csv")["lr"], lr)
    assert json.loads((tmp_path / "range_test.json").read_text())["suggestions"] == found.suggestions
