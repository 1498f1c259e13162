"""Schedules against loops and against the schedulers of PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sightline.training import (
    SCHEDULES,
    Progress,
    constant,
    cosine,
    cycled_momentum,
    multistep,
    one_cycle,
    plateau,
    triangle,
)
from sightline.training import step as step_schedule

STEPS, EPOCHS = 7, 6


def rates(schedule, losses=()):
    return [schedule(Progress(i, STEPS, EPOCHS, losses)) for i in range(STEPS * EPOCHS)]


def torch_rates(make, per_epoch=False):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.4, momentum=0.9)
    scheduler = make(optimizer)
    found = []
    for i in range(STEPS * EPOCHS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if not per_epoch or (i + 1) % STEPS == 0:
            scheduler.step()
    return found


@pytest.mark.parametrize("anneal", ["linear", "cosine"])
def test_one_cycle_equals_that_of_torch_where_the_peak_falls_on_a_step(anneal):
    # torch puts the peak at step pct * total - 1; ours at the share of the way from first to last step.
    total = STEPS * EPOCHS
    share = 12 / (total - 1)
    ours = rates(one_cycle(0.4, peak=share, start_divisor=10, final_divisor=100, anneal=anneal))
    options = {
        "total_steps": total + 1,
        "pct_start": 13 / (total + 1),
        "div_factor": 10,
        "final_div_factor": 100,
    }
    options |= {"anneal_strategy": "cos" if anneal == "cosine" else "linear", "cycle_momentum": False}
    theirs = torch_rates(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.4, **options))
    # One step more in torch's count brings its phases within one step of ours: compare the corners.
    assert ours[0] == pytest.approx(theirs[0]) == pytest.approx(0.04)
    assert max(ours) == pytest.approx(max(theirs)) == pytest.approx(0.4)
    assert ours.index(max(ours)) == theirs.index(max(theirs)) == 12
    assert ours[:13] == pytest.approx(theirs[:13])
    assert ours[-1] == pytest.approx(0.04 / 100)


def test_one_cycle_by_hand():
    ours = rates(one_cycle(0.385, peak=0.4, start_divisor=10, final_divisor=1, anneal="linear"))
    last = STEPS * EPOCHS - 1
    for i, rate in enumerate(ours):
        x = i / last
        expected = 0.0385 + (0.385 - 0.0385) * (x / 0.4 if x < 0.4 else (1 - x) / 0.6)
        assert rate == pytest.approx(expected)


def test_momentum_falls_where_the_rate_rises_only_if_asked_for():
    momentum = rates(cycled_momentum(0.85, 0.95, peak=0.5, anneal="linear"))
    assert momentum[0] == momentum[-1] == pytest.approx(0.95)
    assert min(momentum) == pytest.approx(0.85, abs=5e-3)


def test_step_and_multistep_equal_torch():
    theirs = torch_rates(lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.1), per_epoch=True)
    assert rates(step_schedule(0.4, every=2, gamma=0.1)) == pytest.approx(theirs)
    theirs = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [1, 4], 0.2), per_epoch=True)
    assert rates(multistep(0.4, milestones=[1, 4], gamma=0.2)) == pytest.approx(theirs)


def test_cosine_equals_torch_and_rises_first_if_asked():
    theirs = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS * EPOCHS - 1))
    assert rates(cosine(0.4)) == pytest.approx(theirs, abs=1e-12)
    warm = rates(cosine(0.4, warmup=0.25, end=0.1))
    assert warm[0] == pytest.approx(0.004)
    assert max(warm) == pytest.approx(0.4, rel=0.02)
    assert warm[-1] == pytest.approx(0.04)


def test_triangle_and_constant_by_hand():
    ours = rates(triangle(1.0, peak=0.2, start=0.2, end=0.07))
    last = STEPS * EPOCHS - 1
    for i, rate in enumerate(ours):
        x = i / last
        assert rate == pytest.approx(0.2 + 0.8 * x / 0.2 if x < 0.2 else 1 + (0.07 - 1) * (x - 0.2) / 0.8)
    assert set(rates(constant(0.3))) == {0.3}


@pytest.mark.parametrize("losses", [[3, 2, 2, 2, 2, 2], [1, 2, 3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], [1.0] * 12])
def test_plateau_equals_torch(losses):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.4)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    for seen, loss in enumerate(losses, start=1):
        theirs.step(loss)
        ours = plateau(0.4, factor=0.5, patience=2)(Progress(0, STEPS, EPOCHS, losses[:seen]))
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"])


def test_rates_are_finite_for_a_run_of_one_step():
    options = {
        "one_cycle": {"max_lr": 1.0},
        "triangle": {"max_lr": 1.0},
        "multistep": {"lr": 1.0, "milestones": [1]},
    }
    for name, function in SCHEDULES.items():
        rate = function(**options.get(name, {"lr": 1.0}))(Progress(0, 1, 1))
        assert math.isfinite(rate)
        assert rate >= 0
