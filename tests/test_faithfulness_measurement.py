"""Scores of classes, and how a measurement reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_nets import nonlinear, seeded

from sightline.faithfulness import Measurement, class_logit, class_probability


def some_images(count: int = 3, side: int = 6, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((count, channels, side, side))).float()


def test_a_measurement_reads_as_a_line():
    found = Measurement("deletion", np.full(4, 0.25), False, fill="mean", chance=np.full(4, 0.5))
    assert (
        str(found)
        == "deletion 0.250 [0.250, 0.250], n 4, fill mean, expected by chance 0.500; lower is better"
    )


def test_a_score_is_of_the_target_and_leaves_the_model_as_it_was():
    model, images = seeded(nonlinear).train(), some_images(2, 12)
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    rows = torch.tensor([1, 0, 1])
    probability = class_probability(model, [3, 1])(images[rows], rows)
    logit = class_logit(model, [3, 1])(images[rows], rows)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    with torch.no_grad():
        logits = model.eval()(images)
    assert logit.tolist() == pytest.approx([float(logits[1, 1]), float(logits[0, 3]), float(logits[1, 1])])
    assert probability[1] == pytest.approx(float(logits.softmax(1)[0, 3]))
