"""Averages of weights, layers that stop training, and the published recipe they belong to, step by step."""

from __future__ import annotations

import logging
from math import ceil

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

from sightline.data import ResidentBatches
from sightline.errors import DamagedFileError, InputError, InputTypeError, SightlineError
from sightline.predictions import predict
from sightline.training import (
    EMA,
    Callback,
    Checkpoint,
    EarlyStopping,
    FineTune,
    Freeze,
    History,
    KeepBest,
    Lookahead,
    Objective,
    constant,
    fit,
    load_recipe,
    sgd,
    triangle,
)
from sightline.training.checkpoint import load_checkpoint
from sightline.training.optimizers import layer_depths


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
        optimizer=sgd(**optimizer), schedule=triangle(**schedule), callbacks=recipe.make_callbacks(),
        objective=Objective(recipe.training.label_smoothing), **QUIET,
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


@pytest.mark.parametrize("average", [EMA(decay=0.6), Lookahead(every=2, decay=0.9, power=1)])
def test_an_average_equals_its_formula(average):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    returns = isinstance(average, Lookahead)
    average.start(model)
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
    history = fit(model, data, callbacks=[EMA(decay=0.9)], **options)
    # Trained alike, measured apart: an average never touches the training.
    assert [row["loss"] for row in history.steps] == [row["loss"] for row in without.steps]
    assert history.epochs[-1]["test_loss"] != without.epochs[-1]["test_loss"]
    assert history.epochs[-1]["test_loss"] == pytest.approx(predict(model, data.test).loss.mean(), rel=1e-5)
    assert not torch.equal(model.fc.weight, plain.fc.weight)


@pytest.mark.parametrize("average", [EMA(decay=0.9), Lookahead(every=3)])
@pytest.mark.parametrize("killed_after", [2, 4, 10])
def test_a_killed_run_resumes_its_average_bit_for_bit(tmp_path, average, killed_after):
    data = make_data()
    options = {
        "epochs": 3, "batch_size": 12, "schedule": constant(0.05), "augmentation": AUGMENTATION,
        "validation": 0.2, **QUIET,
    }  # fmt: skip
    callbacks = [KeepBest(), average, Freeze({"whitening.bias": 1})]
    whole = make_model(data)
    expected = fit(whole, data, **options, callbacks=callbacks)
    dying = [at_every_step(tmp_path), DieAfter(killed_after)]
    with pytest.raises(Killed):
        fit(make_model(data), data, **options, callbacks=[*callbacks, *dying])
    resumed, going_on = make_model(data), at_every_step(tmp_path, resume=True)
    history = fit(resumed, data, **options, callbacks=[*callbacks, going_on])
    assert_same(state(resumed), state(whole))
    assert history.steps == expected.steps
    with pytest.raises(SightlineError, match="belongs to another recipe"):
        fit(make_model(data), data, **options, callbacks=[KeepBest(), going_on])


def test_a_layer_trains_for_its_epochs_and_no_longer():
    data = make_data()
    model = make_model(data)
    seen = []

    class Seen(Callback):
        def on_epoch_end(self, trainer):
            seen.append(state(trainer.model))

    fit(
        model, data, epochs=3, batch_size=12, callbacks=[Freeze({"whitening.bias": 2, "block1": 1}), Seen()],
        optimizer=sgd(weight_decay=0.1, momentum=0.9), schedule=constant(0.05), **QUIET,
    )  # fmt: skip
    first, second, third = seen
    assert torch.equal(first["block1.conv2.weight"], third["block1.conv2.weight"])
    assert torch.equal(first["block1.bn1.running_mean"], third["block1.bn1.running_mean"])
    assert torch.equal(first["block1.bn1.num_batches_tracked"], third["block1.bn1.num_batches_tracked"])
    assert not torch.equal(first["block2.bn1.running_mean"], third["block2.bn1.running_mean"])
    assert model.block1.bn1.training
    assert not torch.equal(first["whitening.bias"], second["whitening.bias"])
    assert torch.equal(second["whitening.bias"], third["whitening.bias"])
    assert not torch.equal(second["fc.weight"], third["fc.weight"])
    assert model.whitening.bias.requires_grad
    assert model.block1.conv1.weight.requires_grad
    assert not model.whitening.weight.requires_grad  # was never trained


def test_frozen_statistics_stay_also_where_a_run_goes_on_within_an_epoch(tmp_path):
    data = make_data()
    options = {"epochs": 3, "batch_size": 12, "schedule": constant(0.05), **QUIET}
    frozen = Freeze({"block1": 1})
    whole = make_model(data)
    fit(whole, data, **options, callbacks=[frozen])
    killed = make_model(data)
    steps = -(-len(data.train) // 12)
    with pytest.raises(Killed):
        fit(killed, data, **options, callbacks=[frozen, DieAfter(steps + 2), at_every_step(tmp_path)])
    resumed = make_model(data)
    fit(resumed, data, **options, callbacks=[frozen, at_every_step(tmp_path, resume=True)])
    assert_same(state(resumed), state(whole))


def test_an_optimizer_whose_groups_have_only_rates_of_their_own_keeps_their_ratio():
    data = make_data()
    seen = []

    def plain(model):
        named = list(model.named_parameters())
        head = [p for key, p in named if key.startswith("fc") and p.requires_grad]
        body = [p for key, p in named if not key.startswith("fc") and p.requires_grad]
        return torch.optim.AdamW([{"params": body, "lr": 1e-4}, {"params": head, "lr": 1e-3}])

    class Adds(Callback):
        def on_step_end(self, trainer):
            groups = trainer.optimizer.param_groups
            seen.append([group["lr"] for group in groups])
            if len(groups) == 2:
                trainer.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})

    fit(make_model(data), data, epochs=1, batch_size=12, optimizer=plain, schedule=constant(0.02),
        callbacks=[Adds()], **QUIET)  # fmt: skip
    assert seen[0] == pytest.approx([0.02, 0.2])
    assert seen[-1] == pytest.approx([0.02, 0.2, 0.02])


def test_freezing_what_is_not_there_is_one_line():
    data = make_data()
    with pytest.raises(
        SightlineError,
        match=r"nothing that trains is called 'whitning.bias' in this SpeedNet; did you mean 'whi",
    ):
        fit(make_model(data), data, callbacks=[Freeze({"whitning.bias": 3})], **QUIET)
    with pytest.raises(SightlineError, match=r"nothing that trains is called 'normalize'"):
        fit(make_model(data), data, callbacks=[Freeze({"normalize": 3})], **QUIET)


class Moments(Callback):
    """Notes what it is called at, and how many steps it has seen, as a callback of a user would."""

    def on_train_begin(self, trainer):
        self.seen, self.total = ["train begin"], torch.zeros(())

    def on_epoch_begin(self, trainer):
        self.seen.append(f"epoch {trainer.epoch} begin")

    def on_step_end(self, trainer):
        assert trainer.logits.shape == (len(trainer.batch.labels), 3)
        assert trainer.images == len(trainer.batch.images)
        self.seen.append(f"step {trainer.progress.step}")
        self.total += trainer.loss
        # A callback may change the weights, by what it remembers and by chance.
        with torch.no_grad():
            trainer.model.fc.weight += 1e-3 * self.total * torch.rand(())

    def on_epoch_end(self, trainer):
        self.seen.append(f"epoch {trainer.history.epochs[-1]['epoch']} end")

    def on_train_end(self, trainer):
        self.seen.append("train end")

    def state_dict(self):
        return {"seen": self.seen, "total": self.total}

    def load_state_dict(self, state):
        self.seen, self.total = state["seen"], state["total"]


@pytest.mark.parametrize("killed_after", [1, 4, 6])
def test_a_callback_of_ones_own_is_called_in_order_and_resumed_bit_for_bit(tmp_path, killed_after):
    data = make_data()
    options = {"epochs": 2, "batch_size": 12, "schedule": constant(0.05), **QUIET}
    whole, expected = make_model(data), Moments()
    fit(whole, data, **options, callbacks=[expected, EMA(decay=0.9)])
    steps = [[f"step {4 * epoch + i}" for i in range(4)] for epoch in (0, 1)]
    assert expected.seen == [
        "train begin", "epoch 0 begin", *steps[0], "epoch 1 end",
        "epoch 1 begin", *steps[1], "epoch 2 end", "train end",
    ]  # fmt: skip
    dying = [Moments(), EMA(decay=0.9), at_every_step(tmp_path), DieAfter(killed_after)]
    with pytest.raises(Killed):
        fit(make_model(data), data, **options, callbacks=dying)
    resumed, moments = make_model(data), Moments()
    going_on = [moments, EMA(decay=0.9), at_every_step(tmp_path, resume=True)]
    fit(resumed, data, **options, callbacks=going_on)
    assert_same(state(resumed), state(whole))
    assert moments.seen == expected.seen
    assert torch.equal(moments.total, expected.total)
    with pytest.raises(DamagedFileError, match=r"belongs to another recipe .*state of a callback Moments"):
        fit(make_model(data), data, **options, callbacks=going_on[1:])


def test_the_best_weights_are_those_of_the_average_in_whatever_order_both_are_named():
    data = make_data()
    options = {"epochs": 3, "batch_size": 12, "schedule": constant(0.3), "validation": 0.25, **QUIET}
    first, second = make_model(data), make_model(data)
    history = fit(first, data, **options, callbacks=[KeepBest(), EMA(decay=0.9)])
    fit(second, data, **options, callbacks=[EMA(decay=0.9), KeepBest()])
    assert_same(state(first), state(second))
    best = min(history.epochs, key=lambda row: row["validation_loss"])
    assert history.kept == best["epoch"]
    assert predict(first, data.test).loss.mean() == pytest.approx(best["test_loss"], rel=1e-5)


def test_what_does_not_serve_as_a_callback_is_one_line(tmp_path):
    data = make_data()
    with pytest.raises(InputTypeError, match="is a str; it has to be an object whose class extends"):
        fit(make_model(data), data, callbacks=["ema"], **QUIET)
    with pytest.raises(InputError, match="EMA and Lookahead both average the weights; use one of them"):
        fit(make_model(data), data, callbacks=[EMA(), Lookahead()], **QUIET)

    class Counts(Callback):
        def state_dict(self):
            return {"counts": [np.zeros(2)]}

    with pytest.raises(
        InputTypeError, match=r"the state of callback .*Counts holds a ndarray; a checkpoint keeps"
    ):
        fit(make_model(data), data, callbacks=[Counts(), at_every_step(tmp_path)], **QUIET)


def test_layers_train_again_after_a_failure():
    data = make_data()
    model = make_model(data)
    with pytest.raises(Killed):
        fit(model, data, epochs=2, batch_size=12, callbacks=[Freeze({"block1": 0}), DieAfter(1)], **QUIET)
    assert model.block1.conv1.weight.requires_grad


def test_what_the_log_says_has_been_kept(tmp_path, caplog):
    data = make_data()
    path = tmp_path / "checkpoint.pt"

    class There(logging.Handler):
        def emit(self, record):
            there.append(len(load_checkpoint(path)["epochs"]))

    there, handler = [], There()
    log = logging.getLogger("sightline")
    log.addHandler(handler)
    with caplog.at_level("INFO", "sightline"):
        options = {**QUIET, "verbose": True}
        fit(make_model(data), data, epochs=2, batch_size=12, callbacks=[Checkpoint(path)], **options)
    log.removeHandler(handler)
    assert there == [1, 2]


@pytest.mark.parametrize("metric", ["loss", "accuracy", "balanced_accuracy", "macro_f1"])
def test_the_epoch_is_chosen_by_the_metric_that_is_watched(metric):
    data = make_data(200, 40)
    history = fit(
        make_model(data), data, epochs=5, batch_size=20, validation=0.3, schedule=constant(0.2),
        callbacks=[KeepBest(metric=metric)], **QUIET,
    )  # fmt: skip
    values = [row[f"validation_{metric}"] for row in history.epochs]
    best = min(values) if metric == "loss" else max(values)
    assert history.kept == 1 + values.index(best)


def test_patience_counts_from_the_best_epoch_by_the_metric():
    rows = [0.5, 0.7, 0.6, 0.7, 0.6]
    stopping, kept = EarlyStopping(2, metric="macro_f1"), []

    class Now:
        held_out, stop, epoch = object(), False, 0
        history = History()

    stopping.on_train_begin(Now)
    for number, value in enumerate(rows, start=1):
        Now.history.epochs.append(
            {"epoch": number, "validation_loss": 1 / number, "validation_macro_f1": value}
        )
        Now.epoch = number
        stopping.on_epoch_end(Now)
        kept.append(Now.stop)
    assert kept == [False, False, False, True, True]
    assert stopping.state_dict() == {"macro_f1": 0.7, "epoch": 2}
    with pytest.raises(SightlineError, match="metric 'acuracy' cannot be watched; did you mean 'accuracy'"):
        KeepBest(metric="acuracy")


def _tuned(model: nn.Module, **settings):
    """Train for two epochs with `FineTune`; return the state before, after one epoch, and after two."""
    data, states = make_data(), [state(model)]

    class Keep(Callback):
        def on_epoch_end(self, trainer):
            states.append(state(trainer.model))

    fit(model, data, epochs=2, batch_size=16, callbacks=[FineTune(**settings), Keep()], **QUIET)
    return states


def test_the_head_trains_first_alone_and_statistics_of_the_body_stay_meanwhile():
    model = make_model(make_data())
    before, first, second = _tuned(model, head_epochs=1)
    head = next(reversed(dict(model.named_parameters()))).rpartition(".")[0]
    fixed = {name for name, p in make_model(make_data()).named_parameters() if not p.requires_grad}
    for name, tensor in before.items():
        if name in fixed or name.startswith("normalize"):
            continue
        moved = not torch.equal(tensor, first[name])
        assert moved == name.startswith(f"{head}."), name
        if tensor.is_floating_point():
            assert not torch.equal(first[name], second[name]), name
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == fixed


def test_the_first_blocks_stay_as_they_are_for_good():
    model = make_model(make_data())
    depths = layer_depths(model)
    blocks = max(depths.values())
    before, _, after = _tuned(model, head_epochs=0, frozen=0.5)
    assert blocks > 2
    for name, depth in depths.items():
        if model.get_parameter(name).requires_grad:
            assert torch.equal(before[name], after[name]) == (depth > blocks - int(0.5 * blocks)), name


@pytest.mark.parametrize("killed_after", [1, 4])
def test_fine_tuning_goes_on_bit_for_bit_across_its_phases(tmp_path, killed_after):
    data = make_data()
    options = {"epochs": 2, "batch_size": 16, "optimizer": sgd(layer_decay=0.7), **QUIET}

    def callbacks(*more):
        return [FineTune(head_epochs=1, frozen=0.3), EMA(decay=0.9), *more]

    whole, killed = make_model(data), make_model(data)
    fit(whole, data, callbacks=callbacks(), **options)
    with pytest.raises(Killed):
        fit(killed, data, callbacks=callbacks(DieAfter(killed_after), at_every_step(tmp_path)), **options)
    resumed = make_model(data)
    fit(resumed, data, callbacks=callbacks(at_every_step(tmp_path, resume=True)), **options)
    assert_same(state(whole), state(resumed))
