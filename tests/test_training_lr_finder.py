"""The range test: what it measures, where it stops, and that nothing is left behind."""

from __future__ import annotations

import copy
import json
import math
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_training_trainer import AUGMENTATION, make_data, make_model
from torch import nn

from sightline.data import Dataset, ResidentBatches
from sightline.errors import SightlineError
from sightline.training import (
    LR_RULES,
    Execution,
    Objective,
    RangeTest,
    adam,
    adamw,
    constant,
    find_learning_rate,
    fit,
    mixup,
    muon,
    sgd,
)
from sightline.training.lr_finder import usual_lr
from sightline.training.lr_range_test import debiased_means
from sightline.training.train_step import mix_generator

OPTIONS = {"batch_size": 16, "execution": Execution("float32"), "device": "cpu"}


def test_a_sweep_equals_a_plain_loop_of_torch():
    data = make_data()
    found = find_learning_rate(
        make_model(data), data, low=1e-4, high=1.0, steps=30, seeds=[5], objective=Objective(0.1, 1e-3),
        augmentation=AUGMENTATION, optimizer=sgd(momentum=0.8, weight_decay=0.01), **OPTIONS,
    )  # fmt: skip
    plain = make_model(data).train()
    batches = ResidentBatches(
        data.train, batch_size=16, augmentation=AUGMENTATION, fill=data.mean.tolist(), seed=5, drop_last=False
    )
    optimizer = torch.optim.SGD(plain.parameters(), lr=1, momentum=0.8, weight_decay=0.01)
    stream = (batch for epoch in range(100) for batch in batches.epoch(epoch))
    losses = []
    for step in range(30):
        images, labels, _ = next(stream)
        optimizer.param_groups[0]["lr"] = 1e-4 * 1e4 ** (step / 29)
        logits = plain(images)
        losses.append(nn.functional.cross_entropy(logits, labels).item())
        objective = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
        objective = objective + 1e-3 * sum(p.abs().sum() for p in plain.parameters() if p.ndim > 1)
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
    np.testing.assert_allclose(found.loss[0], losses, rtol=1e-4)
    np.testing.assert_allclose(found.lr, [1e-4 * 1e4 ** (step / 29) for step in range(30)])


def test_a_sweep_mixes_its_batches_as_training_does():
    data = make_data()
    options = OPTIONS | {"steps": 20, "low": 1e-5, "high": 1e-4, "seeds": [5]}
    found = find_learning_rate(make_model(data), data, mix=mixup(), **options).loss[0]
    model = make_model(data).train()
    batches = ResidentBatches(data.train, batch_size=16, fill=data.mean.tolist(), seed=5, drop_last=False)
    for epoch in range(2):  # at rates of nearly nothing the weights stay, and each batch can be done alone
        for position, (images, labels, _) in enumerate(batches.epoch(epoch)):
            mixed = mixup()(images, mix_generator(5, epoch, position)).images
            loss = nn.functional.cross_entropy(model(mixed), labels)
            assert found[epoch * len(batches) + position] == pytest.approx(loss.item(), abs=2e-3)


def test_the_mean_is_the_debiased_one_of_adam():
    losses = np.random.default_rng(0).normal(2, 1, 40)
    running = 0.0
    for i, (loss, mean) in enumerate(zip(losses, debiased_means(losses, 0.9), strict=True)):
        running = 0.9 * running + 0.1 * loss
        assert mean == pytest.approx(running / (1 - 0.9 ** (i + 1)))


def test_the_mean_ends_where_the_loss_is_not_finite():
    means = debiased_means(np.array([1.0, 3.0, np.inf, 2.0, np.nan]), 0.5)
    np.testing.assert_allclose(means, [1.0, 7 / 3, np.nan, np.nan, np.nan])


def test_the_start_and_the_end_of_a_sweep_decide_nothing():
    lr = np.geomspace(1e-4, 10, 101)
    smoothed = 3 - np.log10(lr) / 10
    smoothed[:10] = 0.0  # as if the first batch had been an easy one
    smoothed[-5:] = -5.0
    found = RangeTest(lr, smoothed[None], smoothed[None])
    assert found.rules["minimum/10"][0] == pytest.approx(lr[95] / 10)
    assert lr[10] <= found.rules["steepest"][0] <= lr[95]


class Snapshot:
    """Everything that a range test might touch, as it was."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer):
        self.model, self.optimizer = model, optimizer
        self.before = self.now()

    def now(self) -> list:
        model = [(name, value.clone()) for name, value in self.model.state_dict().items()]
        gradients = [None if p.grad is None else p.grad.clone() for p in self.model.parameters()]
        modes = [module.training for module in self.model.modules()]
        places = [
            (p.data_ptr(), p.device, p.dtype, p.stride(), p.requires_grad) for p in self.model.parameters()
        ]
        python, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
        generators = [torch.get_rng_state(), python, numpy_state[1].tolist(), numpy_state[2:]]
        optimizer = copy.deepcopy(self.optimizer.state_dict())
        return [model, gradients, modes, places, generators, optimizer, torch.is_autocast_enabled("cpu")]

    def assert_unchanged(self) -> None:
        assert_equal(self.before, self.now())


def assert_equal(first, second) -> None:
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        assert_equal(list(first.values()), list(second.values()))
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    else:
        assert first == second


def begun(data: Dataset, dropout: float = 0.5) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model whose training has begun: odd modes, a frozen parameter, gradients, a state of Adam."""
    model = make_model(data, dropout=dropout)
    optimizer = adamw()(model)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    images = torch.rand(8, 3, 8, 8)
    for _ in range(3):
        nn.functional.cross_entropy(model(images), torch.arange(8) % 3).backward()
        optimizer.step()
    model[2].eval()
    model[1].bias.requires_grad_(False)
    return model, optimizer


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_everything_is_left_bit_for_bit_as_it_was(precision):
    data = make_data()
    model, optimizer = begun(data)
    before = Snapshot(model, optimizer)
    options = OPTIONS | {"execution": Execution(precision), "optimizer": optimizer, "steps": 25, "high": 0.1}
    first = find_learning_rate(model, data, seeds=[0, 1], **options)
    before.assert_unchanged()
    torch.rand(3)  # another global state gives the same
    again = find_learning_rate(model, data, seeds=[0, 1], **options)
    np.testing.assert_array_equal(first.loss, again.loss)
    assert not np.array_equal(first.loss[0], first.loss[1])


class Failing(nn.Module):
    """Raises in its tenth pass in training mode, after it drew random numbers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        if self.training:
            self.passes += 1
            random.random()
            np.random.rand()  # noqa: NPY002
        if self.passes >= 10:
            raise OSError("the disk is gone")
        return x + 0 * torch.rand(())


def test_everything_is_left_as_it_was_after_an_exception():
    data = make_data()
    model = nn.Sequential(*begun(data)[0], Failing())
    optimizer = adamw()(model)
    before = Snapshot(model, optimizer)
    with pytest.raises(OSError, match="the disk is gone"):
        find_learning_rate(model, data, optimizer=optimizer, **OPTIONS)
    before.assert_unchanged()


def test_a_test_after_training_has_begun_goes_on_from_the_state_of_the_optimizer():
    data = make_data()
    model = make_model(data)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for state in range(4):  # the momentum of four steps
        loss = nn.functional.cross_entropy(model(torch.rand(8, 3, 8, 8)), torch.arange(8) % 3)
        optimizer.zero_grad()
        (loss * (state + 1)).backward()
        optimizer.step()
    options = OPTIONS | {"low": 0.01, "high": 0.011, "steps": 20, "seeds": [0]}
    going_on = find_learning_rate(model, data, optimizer=optimizer, **options).loss[0]
    anew = find_learning_rate(model, data, optimizer=sgd(momentum=0.9), **options).loss[0]
    assert going_on[0] == anew[0]
    assert not np.allclose(going_on[1:], anew[1:], rtol=1e-5)

    twin = copy.deepcopy(model).train()  # a plain loop with a copy of the momentum
    plain = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    plain.load_state_dict(optimizer.state_dict())
    batches = ResidentBatches(data.train, batch_size=16, fill=data.mean.tolist(), seed=0, drop_last=False)
    stream = (batch for epoch in range(100) for batch in batches.epoch(epoch))
    for rate, measured in zip(np.geomspace(0.01, 0.011, 20), going_on, strict=True):
        images, labels, _ = next(stream)
        plain.param_groups[0]["lr"] = rate
        loss = nn.functional.cross_entropy(twin(images), labels)
        assert loss.item() == pytest.approx(measured, rel=1e-4)
        plain.zero_grad()
        loss.backward()
        plain.step()


def test_groups_of_a_given_optimizer_keep_the_ratio_of_their_rates():
    data = make_data()
    model = make_model(data)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    vectors = [p for norm in norms for p in norm.parameters()]
    matrices = [p for p in model.parameters() if not any(p is vector for vector in vectors)]
    given = torch.optim.SGD([{"params": matrices, "lr": 0.2}, {"params": vectors, "lr": 0.8}], momentum=0.9)
    ours = sgd(bias_lr_factor=4.0)
    options = OPTIONS | {"steps": 20, "high": 0.1, "seeds": [0]}
    np.testing.assert_allclose(
        find_learning_rate(model, data, optimizer=given, **options).loss,
        find_learning_rate(model, data, optimizer=ours, **options).loss,
        rtol=1e-6,
    )


def test_a_function_makes_a_new_model_for_every_seed():
    data = make_data()

    def make(seed: int) -> nn.Module:
        made.append(seed)
        return make_model(data)

    made: list[int] = []
    found = find_learning_rate(make, data, steps=20, high=0.1, seeds=[3, 7], **OPTIONS)
    same = find_learning_rate(make_model(data), data, steps=20, high=0.1, seeds=[3, 7], **OPTIONS)
    assert made == [3, 3, 7]  # the first of them for the default of its network
    assert found.seeds == (3, 7)
    np.testing.assert_array_equal(found.loss, same.loss)


def test_it_stops_where_the_loss_runs_away():
    data = make_data()
    found = find_learning_rate(make_model(data), data, high=1e6, steps=60, seeds=[0, 1], **OPTIONS)
    for loss, smoothed in zip(found.loss, found.smoothed, strict=True):
        done = np.isfinite(smoothed)
        count = int(done.sum())
        assert 20 < count < 60
        assert not done[count:].any()  # nothing after the stop
        assert np.isnan(loss[count:]).all()
        means = smoothed[:count]
        over = [m > 1.1 * max(means[min(i, 9)], math.log(3)) for i, m in enumerate(means)]
        assert not any(over[:-1])  # and not before it
        assert over[-1]
    assert max(middle for middle, _, _ in found.rules.values()) < 1e3


class Poisoned(nn.Module):
    """Gives NaN from batch number `passes` on that it is trained on."""

    def __init__(self, passes: int):
        super().__init__()
        self.last = passes
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += float(self.training)
        return x * (float("nan") if self.passes >= self.last else 1.0)


def test_a_loss_that_is_not_finite_ends_the_sweep_and_harms_nothing():
    data = make_data()
    model = nn.Sequential(*make_model(data), Poisoned(40))
    found = find_learning_rate(model, data, steps=60, high=0.1, seeds=[0], **OPTIONS)
    assert np.isfinite(found.loss[0, :39]).all()
    assert np.isnan(found.loss[0, 39:]).all()
    assert np.isfinite(found.smoothed[0, :39]).all()
    assert math.isfinite(found.suggestion)
    assert found.to_frame()["lr"].tolist() == found.lr[:39].tolist()


def test_a_lucky_first_batch_of_a_trained_model_does_not_end_the_sweep():
    data = make_data(48)  # no smaller last batch
    model = make_model(data)
    quiet = {"verbose": False, "execution": Execution("float32"), "device": "cpu"}
    fit(model, data, epochs=40, batch_size=16, schedule=constant(0.1), **quiet)
    found = find_learning_rate(model, data, steps=40, high=1e-3, smoothing=0.0, seeds=[0], **OPTIONS)
    assert np.isfinite(found.loss).all()
    assert found.loss.max() > 4 * found.loss.min()  # which alone would have ended it
    assert found.loss.max() < math.log(3)


def test_wrong_use_is_one_line():
    data = make_data()
    for wrong in ({"low": 1.0, "high": 0.1}, {"steps": 19}, {"steps": -1}, {"seeds": []}, {"smoothing": 1.0}):
        with pytest.raises(SightlineError, match="use 0 < low < high, at least 20 steps, smoothing in"):
            find_learning_rate(make_model(data), data, **wrong, **OPTIONS)
    broken = make_model(data)
    nn.init.constant_(broken[7].weight, 1e30)
    with pytest.raises(
        SightlineError, match=r"ran away after \d+ of 100 steps, .* lower the start of the range"
    ):
        find_learning_rate(broken, data, low=1e20, high=1e30, **OPTIONS)
    with pytest.raises(SightlineError, match="the optimizer trains parameters of another model"):
        find_learning_rate(make_model(data), data, optimizer=sgd()(make_model(data)), **OPTIONS)


def test_it_is_saved_as_a_table_and_a_card(tmp_path):
    lr = np.geomspace(1e-3, 1, 30)
    loss = np.stack([np.linspace(3, 1, 30), np.linspace(2, 1, 30)])
    loss[1, 25:] = np.nan
    found = RangeTest(lr, loss, loss, seeds=(4, 9), usual=0.1)  # the second sweep ends at lr[24]
    found.save(tmp_path, used=0.3)
    table = pd.read_csv(tmp_path / "range_test.csv")
    assert table["seed"].tolist() == [4] * 30 + [9] * 25
    np.testing.assert_allclose(table["lr"], [*lr, *lr[:25]])
    card = json.loads((tmp_path / "range_test.json").read_text())
    suggested = float(f"{lr[24] / 4:.3g}")
    assert card["suggestions"] == found.suggestions == {"sweep": suggested}
    assert card["ranges"] == {"sweep": list(found.range)}
    assert (card["suggestion"], card["recommended"], card["usual"]) == (suggested, "sweep", 0.1)
    assert (card["seeds"], card["used"], card["reason"]) == ([4, 9], 0.3, found.reason)
    found.save(tmp_path, rules=True)
    card = json.loads((tmp_path / "range_test.json").read_text())
    assert list(card["suggestions"]) == list(card["ranges"]) == ["sweep", *LR_RULES]
    assert [card["suggestions"]["valley"], *card["ranges"]["valley"]] == list(found.rules["valley"])


def test_without_a_sweep_the_default_stands_alone(tmp_path):
    data = make_data()
    steps = []
    found = find_learning_rate(
        make_model(data), data, steps=0, optimizer=adam(), on_step=lambda: steps.append(1), **OPTIONS
    )
    assert (found.suggestion, found.recommended, found.falling) == (0.003, "default", None)
    assert found.range == (0.00038, 0.024)
    assert found.divisor == 10
    assert not steps
    found.save(tmp_path, rules=True)
    assert [path.name for path in tmp_path.iterdir()] == ["range_test.json"]
    card = json.loads((tmp_path / "range_test.json").read_text())
    assert (card["suggestions"], card["seeds"]) == ({"default": 0.003}, [])


def test_an_optimizer_without_a_default_needs_a_sweep():
    data = make_data()
    options = OPTIONS | {"optimizer": lambda model: torch.optim.Adagrad(model.parameters(), lr=1.0)}
    with pytest.raises(SightlineError, match="has no default learning rate; search with at least 20 steps"):
        find_learning_rate(make_model(data), data, steps=0, **options)
    found = find_learning_rate(make_model(data), data, steps=40, **options)
    assert (found.lr[0], found.lr[-1]) == pytest.approx((1e-5, 10))
    assert found.usual is None
    assert found.recommended == "sweep"


def test_every_step_is_told_and_the_sweep_goes_a_hundred_times_down_and_up():
    data, steps = make_data(), []
    found = find_learning_rate(
        make_model(data), data, steps=25, seeds=[0, 1], on_step=lambda: steps.append(1), **OPTIONS
    )
    assert len(steps) >= np.isfinite(found.loss).sum()
    assert found.usual is not None
    assert (found.lr[0], found.lr[-1]) == pytest.approx((found.usual / 100, found.usual * 100))


def test_the_default_is_that_of_the_literature():
    plain, normal = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    known = [
        (normal, sgd(momentum=0.9), 512, 0.4), (normal, sgd(momentum=0.9), 128, 0.2),
        (normal, sgd(momentum=0.8), 512, 0.8), (normal, sgd(momentum=0.0), 512, 4.0),
        (plain, sgd(momentum=0.9), 128, 0.01), (plain, adam(), 128, 0.003), (normal, adamw(), 32, 0.003),
        (normal, muon(), 128, 0.02),
    ]  # fmt: skip
    for model, make, batch, expected in known:
        assert usual_lr(model, make(model), batch) == pytest.approx(expected)
    assert usual_lr(normal, sgd(momentum=0.9)(normal), 128, pretrained=True) == pytest.approx(0.0015)
    assert usual_lr(normal, adamw()(normal), 128, pretrained=True) == 5e-5
    assert usual_lr(plain, torch.optim.Adagrad(plain.parameters()), 128) is None


def two_processes(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    data = make_data()
    model = nn.parallel.DistributedDataParallel(make_model(data))
    options = OPTIONS | {"steps": 20, "high": 0.1, "seeds": [0, 1, 2]}
    np.save(f"{folder}/{rank}.npy", find_learning_rate(model, data, **options).loss)
    if rank == 1:
        nn.init.constant_(model.module[7].weight, 1e30)
    try:
        find_learning_rate(model, data, **options)
    except SightlineError as error:
        Path(f"{folder}/{rank}.txt").write_text(str(error))
    torch.distributed.destroy_process_group()


def test_two_processes_share_the_seeds_and_agree_with_one(tmp_path):
    torch.multiprocessing.spawn(two_processes, (str(tmp_path),), nprocs=2)
    data = make_data()
    alone = find_learning_rate(make_model(data), data, steps=20, high=0.1, seeds=[0, 1, 2], **OPTIONS)
    for rank in (0, 1):
        np.testing.assert_allclose(np.load(tmp_path / f"{rank}.npy"), alone.loss, rtol=1e-6)
        # What stopped one of them is told by both, and neither waits for the other.
        assert "the loss ran away after" in (tmp_path / f"{rank}.txt").read_text()
