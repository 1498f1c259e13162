"""Averages of weights, layers that stop training, and the published recipe they belong to, step by step."""

from __future__ import annotations

from math import ceil

import pytest
import torch
from torch import nn
from training_cases import AUGMENTATION, QUIET, Killed, assert_same, die_after, make_data, make_model, state

from sightline.data import ResidentBatches
from sightline.errors import SightlineError
from sightline.predictions import predict
from sightline.training import constant, ema, fit, load_recipe, lookahead, sgd, triangle


def published_training(model, batches, *, lr_per_1024, decay_per_1024, epochs, batch_size) -> None:
    """The loop of airbench94 as published, on the summed loss, with its own units."""
    momentum = 0.85
    kilostep_scale = 1024 * (1 + 1 / (1 - momentum))
    lr = lr_per_1024 / kilostep_scale
    wd = decay_per_1024 * batch_size / kilostep_scale
    biases = [p for k, p in model.named_parameters() if "bn" in k and p.requires_grad]
    others = [p for k, p in model.named_parameters() if "bn" not in k and p.requires_grad]
    groups = [
        {"params": biases, "lr": 64 * lr, "weight_decay": wd / (64 * lr)},
        {"params": others, "lr": lr, "weight_decay": wd / lr},
    ]
    optimizer = torch.optim.SGD(groups, momentum=momentum, nesterov=True)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.2, reduction="none")
    total = ceil(len(batches) * epochs)
    alpha = 0.95**5 * (torch.arange(total + 1) / total) ** 3
    slow = {k: v.clone() for k, v in model.state_dict().items()}

    def blend(decay):
        for old, new in zip(slow.values(), model.state_dict().values(), strict=True):
            if new.dtype == torch.float:
                old.lerp_(new, 1 - decay)
                new.copy_(old)

    step = 0
    initial = [group["lr"] for group in optimizer.param_groups]
    for epoch in range(epochs):
        model.whitening.bias.requires_grad = epoch < 3
        model.train()
        for images, labels, _ in batches.epoch(epoch):
            at, top = step / (total - 1), 0.23
            rate = 0.2 + 0.8 * at / top if at < top else 1 + (0.07 - 1) * (at - top) / (1 - top)
            for group, full in zip(optimizer.param_groups, initial, strict=True):
                group["lr"] = full * rate
            loss = loss_fn(model(images), labels).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            if step % 5 == 0:
                blend(alpha[step].item())
            if step >= total:
                blend(1.0)


def test_the_recipe_equals_the_published_training_on_the_summed_loss():
    data, batch, epochs = make_data(), 12, 4
    recipe = load_recipe("cifar10-94")
    k = 1 + 1 / (1 - 0.85)
    assert recipe.schedule["max_lr"] == pytest.approx(11.5 / k * recipe.training.batch_size / 1024)
    assert recipe.optimizer["weight_decay"] == pytest.approx(0.0153 / 11.5, rel=1e-3)

    lr, decay = 200.0, 1.0  # few steps of small batches: more of both, so that each shows
    schedule = {**recipe.schedule, "max_lr": lr / k * batch / 1024}
    optimizer = {**recipe.optimizer, "weight_decay": decay / lr}
    del schedule["name"], optimizer["name"]

    model, plain = make_model(data), make_model(data)
    fit(
        model, data, epochs=epochs, batch_size=batch, seed=3, augmentation=AUGMENTATION,
        optimizer=sgd(**optimizer), schedule=triangle(**schedule), average=recipe.make_average(),
        label_smoothing=recipe.training.label_smoothing, freeze=recipe.training.freeze, **QUIET,
    )  # fmt: skip
    batches = ResidentBatches(
        data.train, batch_size=batch, augmentation=AUGMENTATION, fill=data.mean.tolist(), seed=3
    )
    before = state(plain)
    published_training(plain, batches, lr_per_1024=lr, decay_per_1024=decay, epochs=epochs, batch_size=batch)
    for name, value in state(plain).items():
        torch.testing.assert_close(state(model)[name], value, rtol=1e-3, atol=1e-4, msg=name)
    for name in ("whitening.bias", "block1.conv1.weight", "block3.bn2.bias", "fc.weight"):
        assert (state(plain)[name] - before[name]).abs().max() > 0.01, name


def test_the_published_96_percent_settings_are_converted_alike():
    recipe = load_recipe("cifar10-96")
    k = 1 + 1 / (1 - recipe.optimizer["momentum"])
    assert recipe.schedule["max_lr"] == pytest.approx(9.0 / k * recipe.training.batch_size / 1024, rel=1e-3)
    assert recipe.optimizer["weight_decay"] == pytest.approx(0.012 / 9.0, rel=1e-2)


@pytest.mark.parametrize("make", [ema(decay=0.6), lookahead(every=2, decay=0.9, power=1)])
def test_an_average_equals_its_formula(make):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    returns = make(model)._returns
    average = make(model)
    slow, steps = state(model), 7
    for step in range(1, steps + 1):
        with torch.no_grad():
            for p in model.parameters():
                p += torch.randn_like(p)
            model[1].running_mean += 1
            model[1].num_batches_tracked += 1
        fast = state(model)
        average.update(model, step, steps)
        if returns and step % 2:
            expected = slow if step == steps else fast
            assert_same(state(model), {**expected, "1.num_batches_tracked": fast["1.num_batches_tracked"]})
            continue
        decay = 0.9**2 * step / steps if returns else min(0.6, (1 + step) / (10 + step))
        for name in slow:
            if name.endswith("num_batches_tracked"):
                slow[name] = fast[name]
            else:
                slow[name] = decay * slow[name] + (1 - decay) * fast[name]
        for name, tensor in average.slow.items():
            torch.testing.assert_close(tensor, slow[name])
        if returns:
            slow = state(model)
        else:
            assert_same(state(model), fast)
    with average.shown(model):
        for name, tensor in average.slow.items():
            torch.testing.assert_close(state(model)[name], tensor, rtol=0, atol=0)
    if not returns:
        assert_same(state(model), fast)


def test_the_test_figures_and_the_kept_weights_are_those_of_the_average():
    data = make_data()
    options = {"epochs": 2, "batch_size": 12, "schedule": constant(0.05), **QUIET}
    plain, model = make_model(data), make_model(data)
    without = fit(plain, data, **options)
    history = fit(model, data, average=ema(decay=0.9), **options)
    # Trained alike, measured apart: an average never touches the training.
    assert [row["loss"] for row in history.steps] == [row["loss"] for row in without.steps]
    assert history.epochs[-1]["test_loss"] != without.epochs[-1]["test_loss"]
    assert history.epochs[-1]["test_loss"] == pytest.approx(predict(model, data.test).loss.mean(), rel=1e-5)
    assert not torch.equal(model.fc.weight, plain.fc.weight)


@pytest.mark.parametrize("average", [ema(decay=0.9), lookahead(every=3)])
@pytest.mark.parametrize("killed_after", [2, 4, 10])
def test_a_killed_run_resumes_its_average_bit_for_bit(tmp_path, average, killed_after):
    data = make_data()
    options = {
        "epochs": 3, "batch_size": 12, "schedule": constant(0.05), "augmentation": AUGMENTATION,
        "average": average, "freeze": {"whitening.bias": 1}, "validation": 0.2, "keep": "best", **QUIET,
    }  # fmt: skip
    whole = make_model(data)
    expected = fit(whole, data, **options)
    every = {"checkpoint": tmp_path / "checkpoint.pt", "checkpoint_seconds": 0.0}
    with pytest.raises(Killed):
        fit(make_model(data), data, **options, **every, on_step=die_after(killed_after))
    resumed = make_model(data)
    history = fit(resumed, data, **options, **every, resume=True)
    assert_same(state(resumed), state(whole))
    assert history.steps == expected.steps
    with pytest.raises(SightlineError, match="belongs to another recipe"):
        fit(make_model(data), data, **{**options, "average": _other(average)}, **every, resume=True)


def _other(average):
    return lambda model: ema()(nn.Linear(2, 2))


def test_a_layer_trains_for_its_epochs_and_no_longer():
    data = make_data()
    model = make_model(data)
    seen = []
    fit(
        model, data, epochs=3, batch_size=12, freeze={"whitening.bias": 2, "block1": 1},
        optimizer=sgd(weight_decay=0.1, momentum=0.9), schedule=constant(0.05),
        **{**QUIET, "on_epoch": lambda history, epochs: seen.append(state(model))},
    )  # fmt: skip
    first, second, third = seen
    assert torch.equal(first["block1.conv2.weight"], third["block1.conv2.weight"])
    assert not torch.equal(first["block1.bn1.running_mean"], third["block1.bn1.running_mean"])
    assert not torch.equal(first["whitening.bias"], second["whitening.bias"])
    assert torch.equal(second["whitening.bias"], third["whitening.bias"])
    assert not torch.equal(second["fc.weight"], third["fc.weight"])
    assert model.whitening.bias.requires_grad
    assert model.block1.conv1.weight.requires_grad
    assert not model.whitening.weight.requires_grad  # was never trained


def test_freezing_what_is_not_there_is_one_line():
    data = make_data()
    with pytest.raises(
        SightlineError,
        match=r"nothing that trains is called 'whitning.bias' in this SpeedNet; did you mean 'whi",
    ):
        fit(make_model(data), data, freeze={"whitning.bias": 3}, **QUIET)
    with pytest.raises(SightlineError, match=r"nothing that trains is called 'normalize'"):
        fit(make_model(data), data, freeze={"normalize": 3}, **QUIET)
