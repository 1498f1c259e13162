"""Mixup and cutmix: pixels and shares by their formulas, the loss, and what a resumed run draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from training_cases import (
    AUGMENTATION,
    QUIET,
    DieAfter,
    Killed,
    assert_same,
    at_every_step,
    make_data,
    make_model,
    state,
)

from sightline.models import to_float
from sightline.training import Objective, constant, cutmix, fit, mixup, sgd
from sightline.training.train_step import MIXES, Mixed, mix_generator, train_step


def test_mixup_equals_its_formula():
    images = torch.rand(5, 3, 4, 4)
    for seed in range(5):
        mixed = mixup(alpha=0.4)(images, np.random.default_rng(seed))
        drawn = np.random.default_rng(seed).beta(0.4, 0.4)
        assert mixed.share == max(drawn, 1 - drawn)
        assert sorted(mixed.partners.tolist()) == list(range(5))
        for own, other, image in zip(images, mixed.partners, mixed.images, strict=True):
            expected = mixed.share * own + (1 - mixed.share) * images[other]
            torch.testing.assert_close(image, expected)


def test_cutmix_pastes_one_rectangle_and_counts_its_pixels():
    height, width, count = 8, 6, 4
    # Every pixel says whose it is.
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, 3, height, width).contiguous()
    areas = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        mixed = cutmix(alpha=1.0)(images, generator)
        partners = mixed.partners.float().view(-1, 1, 1)
        own = torch.arange(count).float().view(-1, 1, 1)
        assert torch.equal(mixed.images[:, 0], mixed.images[:, 2])
        whose = mixed.images[:, 0]
        assert torch.equal((whose == own) | (whose == partners), torch.ones_like(whose, dtype=torch.bool))
        for n in range(count):
            if mixed.partners[n] == n:
                continue
            share = float((whose[n] == n).float().mean())
            assert share == pytest.approx(mixed.share)
            assert share >= 0.5
            inside = whose[n] != whose[n, 0, 0] if share == 1 else whose[n] == n
            minority = inside if inside.float().mean() <= 0.5 else ~inside
            areas.append(float(minority.float().mean()))
            if not minority.any():
                continue
            # One of the two parts is a full rectangle.
            rectangles = [part for part in (inside, ~inside) if part.any() and _is_rectangle(part)]
            assert rectangles
    assert len(set(areas)) > 10  # not one area for all


def _is_rectangle(mask: torch.Tensor) -> bool:
    rows, columns = mask.any(1), mask.any(0)
    return (
        bool(torch.equal(mask, rows[:, None] & columns[None, :])) and _together(rows) and _together(columns)
    )


def _together(line: torch.Tensor) -> bool:
    places = line.nonzero().flatten()
    return int(places[-1] - places[0]) + 1 == len(places)


def test_the_share_that_is_pasted_follows_beta():
    # Yun 2019: the rectangle's area is 1 - lambda, lambda uniform for alpha = 1, before the edge cuts it.
    images = torch.zeros(2, 3, 32, 32)
    own, kept = [], []
    for seed in range(400):
        mixed = cutmix(alpha=1.0)(images, np.random.default_rng(seed))
        own.append(1 - mixed.share)
        drawn = np.random.default_rng(seed)
        side = np.sqrt(1 - drawn.beta(1.0, 1.0))
        edges = []
        for size in (32, 32):
            centre, length = int(drawn.integers(size)), int(size * side)
            edges.append(sum(0 <= centre - length // 2 + k < size for k in range(length)))
        area = edges[0] * edges[1] / 32**2
        kept.append(min(area, 1 - area))
    np.testing.assert_allclose(own, kept)
    assert max(own) > 0.45


def test_the_loss_is_the_mean_of_both_labels_by_their_shares():
    data = make_data()
    model, plain = make_model(data), make_model(data)
    images, labels = to_float(data.train.images[:8]), torch.from_numpy(data.train.labels[:8])
    mixed = mixup(alpha=1.0)(images, np.random.default_rng(1))
    optimizers = [sgd(momentum=0)(each) for each in (model, plain)]
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = 0.1
    loss, found = train_step(
        model, optimizers[0], mixed.images, labels, precision="float32", objective=Objective(0.1), mixed=mixed
    )
    logits = plain(mixed.images)
    known = nn.functional.cross_entropy(logits.detach(), labels)
    one_hot = nn.functional.one_hot(labels, 3).float()
    target = mixed.share * one_hot + (1 - mixed.share) * one_hot[mixed.partners]
    smooth = 0.9 * target + 0.1 / 3
    (-(smooth * logits.log_softmax(1)).sum(1).mean()).backward()
    optimizers[1].step()
    for name, value in state(plain).items():
        torch.testing.assert_close(state(model)[name], value, rtol=1e-4, atol=1e-6)
    assert float(loss) == pytest.approx(float(known), rel=1e-5)
    torch.testing.assert_close(found, logits.detach())


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_killed_run_draws_the_same_mixtures_again(tmp_path, name):
    data = make_data()
    options = {
        "epochs": 2, "batch_size": 12, "schedule": constant(0.05), "augmentation": AUGMENTATION,
        "mix": MIXES[name](), "seed": 5, **QUIET,
    }  # fmt: skip
    whole = make_model(data)
    expected = fit(whole, data, **options)
    with pytest.raises(Killed):
        fit(make_model(data), data, **options, callbacks=[at_every_step(tmp_path), DieAfter(5)])
    resumed = make_model(data)
    history = fit(resumed, data, **options, callbacks=[at_every_step(tmp_path, resume=True)])
    assert_same(state(resumed), state(whole))
    assert history.steps == expected.steps


def test_each_batch_has_a_draw_of_its_own():
    shares = {
        mixup()(torch.zeros(2, 3, 2, 2), mix_generator(seed, epoch, step)).share
        for seed in (0, 1) for epoch in (0, 1) for step in (0, 1)
    }  # fmt: skip
    assert len(shares) == 8
    first, again = (cutmix()(torch.rand(6, 3, 8, 8), mix_generator(3, 1, 2)) for _ in range(2))
    assert isinstance(first, Mixed)
    assert torch.equal(first.partners, again.partners)
