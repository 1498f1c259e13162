"""The loop: equal to a plain one, resumed bit for bit, measured per sample, never led by the test split."""

from __future__ import annotations

import functools
import io
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from training_cases import QUIET, DieAfter, Killed, at_every_step

from sightline.data import Augmentation, Dataset, ResidentBatches, Split
from sightline.errors import DamagedFileError, DivergedError, InputError, SightlineError
from sightline.models import Normalize
from sightline.predictions import predict
from sightline.training import (
    Checkpoint,
    EarlyStopping,
    Execution,
    KeepBest,
    Objective,
    Trainer,
    constant,
    fit,
    one_cycle,
    plateau,
    sgd,
)
from sightline.training.checkpoint import load_checkpoint, save_checkpoint


def make_data(train: int = 50, test: int = 30, seed: int = 0) -> Dataset:
    """Three classes that differ in the mean of a channel."""
    generator = np.random.default_rng(seed)

    def split(count: int) -> Split:
        labels = np.arange(count) % 3
        images = generator.integers(0, 160, (count, 8, 8, 3))
        images[np.arange(count), :, :, labels] += 60
        return Split(images.astype(np.uint8), labels)

    return Dataset("three", ("red", "green", "blue"), split(train), split(test))


def make_model(data: Dataset, dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            Normalize(data.mean.tolist(), data.std.tolist()),
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
        )  # fmt: skip


AUGMENTATION = Augmentation(crop_padding=1, flip="random", cutout_size=2, cutout_p=0.5)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_the_loop_equals_a_plain_loop_of_torch():
    data = make_data()
    model, plain = make_model(data), make_model(data)
    history = fit(
        model, data, epochs=3, batch_size=16, seed=4, objective=Objective(label_smoothing=0.1),
        optimizer=sgd(momentum=0.8, nesterov=True, weight_decay=0.01),
        schedule=one_cycle(0.2, peak=0.5, anneal="linear"), augmentation=AUGMENTATION, **QUIET,
    )  # fmt: skip

    batches = ResidentBatches(
        data.train, batch_size=16, augmentation=AUGMENTATION, fill=data.mean.tolist(), seed=4, drop_last=False
    )
    optimizer = torch.optim.SGD(plain.parameters(), lr=1, momentum=0.8, nesterov=True, weight_decay=0.01)
    plain.train()
    step = 0
    for epoch in range(3):
        losses, hits = [], 0
        for images, labels, _ in batches.epoch(epoch):
            x = step / (3 * 4 - 1)
            low, final = 0.2 / 25, 0.2 / 25 / 1e4
            lr = low + (0.2 - low) * x / 0.5 if x < 0.5 else 0.2 + (final - 0.2) * (x - 0.5) / 0.5
            optimizer.param_groups[0]["lr"] = lr
            logits = plain(images)
            objective = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
            optimizer.zero_grad()
            objective.backward()
            optimizer.step()
            losses += nn.functional.cross_entropy(logits, labels, reduction="none").tolist()
            hits += int((logits.argmax(1) == labels).sum())
            assert history.steps[step]["lr"] == pytest.approx(lr)
            step += 1
        row = history.epochs[epoch]
        assert len(losses) == 50  # the ragged last batch counts, and for no more than its images
        assert row["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert row["train_accuracy"] == hits / 50
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(model)[name], value, rtol=1e-4, atol=1e-5)


def test_test_figures_are_sample_means_in_evaluation_mode():
    data = make_data()
    model = make_model(data, dropout=0.5)
    history = fit(model, data, epochs=2, batch_size=16, schedule=constant(0.1), **QUIET)
    found = predict(model, data.test, batch_size=7)
    assert history.epochs[-1]["test_loss"] == pytest.approx(found.loss.mean(), rel=1e-5)
    assert history.epochs[-1]["test_accuracy"] == found.correct.mean()
    assert model.training


def test_it_learns_what_can_be_learnt():
    data = make_data(300, 60)
    history = fit(make_model(data), data, epochs=8, batch_size=32, schedule=one_cycle(0.3), **QUIET)
    assert history.epochs[-1]["test_accuracy"] > 0.95
    assert history.kept == 8
    assert list(history.to_frame()) == [
        "epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy",
        "test_balanced_accuracy", "test_macro_f1",
        "seconds", "images_per_second",
    ]  # fmt: skip


def test_the_global_random_state_is_left_as_it_was():
    data = make_data()
    before = torch.get_rng_state()
    fit(make_model(data, dropout=0.5), data, epochs=1, batch_size=16, **QUIET)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4, 8])
def test_a_run_that_was_killed_goes_on_to_the_same_weights_bit_for_bit(tmp_path, killed_after):
    data = make_data()
    options = {
        "epochs": 3, "batch_size": 16, "schedule": one_cycle(0.2), "augmentation": AUGMENTATION,
        "validation": 0.2, "seed": 7, **QUIET,
    }  # fmt: skip
    whole = make_model(data, dropout=0.5)
    expected = fit(whole, data, **options, callbacks=[KeepBest()])
    dying = [KeepBest(), at_every_step(tmp_path), DieAfter(killed_after)]
    with pytest.raises(Killed):
        fit(make_model(data, dropout=0.5), data, **options, callbacks=dying)
    torch.manual_seed(99)  # another process has another random state
    resumed = make_model(data, dropout=0.5)
    history = fit(resumed, data, **options, callbacks=[KeepBest(), at_every_step(tmp_path, resume=True)])
    assert_same(weights(resumed), weights(whole))
    assert history.steps == expected.steps
    assert history.kept == expected.kept
    for row, other in zip(history.epochs, expected.epochs, strict=True):
        timed = {"seconds", "images_per_second"}
        assert {k: v for k, v in row.items() if k not in timed} == {
            k: v for k, v in other.items() if k not in timed
        }


def test_a_finished_run_resumes_to_itself(tmp_path):
    data, path = make_data(), tmp_path / "checkpoint.pt"
    model = make_model(data)
    fit(model, data, epochs=2, batch_size=16, callbacks=[Checkpoint(path)], **QUIET)
    again = make_model(data)
    history = fit(again, data, epochs=2, batch_size=16, callbacks=[Checkpoint(path, resume=True)], **QUIET)
    assert_same(weights(model), weights(again))
    assert len(history.epochs) == 2


def test_a_checkpoint_that_does_not_fit_or_is_damaged_is_one_line(tmp_path):
    data, path = make_data(), tmp_path / "checkpoint.pt"
    fit(make_model(data), data, epochs=1, batch_size=16, callbacks=[Checkpoint(path)], **QUIET)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(SightlineError, match=r"belongs to another recipe .*; start the run anew"):
        fit(wide, data, epochs=1, batch_size=16, callbacks=[Checkpoint(path, resume=True)], **QUIET)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SightlineError, match=r"is damaged .*; delete it and start the run anew"):
        load_checkpoint(path)


class Evil:
    fired: ClassVar[list[str]] = []

    def __reduce__(self):
        return (Evil.fired.append, ("ran",))


def test_nothing_in_a_checkpoint_can_run(tmp_path):
    path = tmp_path / "checkpoint.pt"
    packed = io.BytesIO()
    torch.save({"model": Evil()}, packed)
    path.write_bytes(packed.getvalue())
    with pytest.raises(SightlineError, match="is damaged"):
        load_checkpoint(path)
    assert Evil.fired == []


def test_a_loss_that_is_not_finite_stops_with_the_step_and_a_hint():
    data = make_data()
    with pytest.raises(
        DivergedError, match=r"the loss is (nan|inf) at step \d+ \(epoch \d+, learning rate 1e\+3\d\); lower"
    ) as caught:
        fit(make_model(data), data, epochs=5, batch_size=16, schedule=constant(1e38), **QUIET)
    assert "find-lr" in str(caught.value)


def test_best_and_early_stopping_watch_the_validation_split_alone(monkeypatch):
    data = make_data(60)
    losses = iter([3.0, 1.0, 2.0, 2.5, 2.6, 0.1])
    seen = []

    def evaluate(self):
        seen.append(weights(self.model))
        return {
            "validation_loss": next(losses),
            "validation_accuracy": 0.5,
            "test_loss": -len(seen),
            "test_accuracy": 1,
        }

    monkeypatch.setattr(Trainer, "_evaluate", evaluate)
    model = make_model(data)
    history = fit(
        model,
        data,
        epochs=6,
        batch_size=16,
        validation=0.2,
        callbacks=[KeepBest(), EarlyStopping(3)],
        schedule=constant(0.1),
        **QUIET,
    )
    assert len(history.epochs) == 5  # epoch 2 was the best, and three more were given
    assert history.kept == 2
    assert_same(weights(model), seen[1])


def test_the_validation_split_is_not_trained_on(monkeypatch):
    data = make_data(60)
    trained = []
    original = Trainer._step

    def spy(self, images, labels):
        trained.append(len(labels))
        return original(self, images, labels)

    monkeypatch.setattr(Trainer, "_step", spy)
    history = fit(make_model(data), data, epochs=1, batch_size=16, validation=0.25, **QUIET)
    assert sum(trained) == 45
    assert {"validation_loss", "validation_accuracy"} <= set(history.epochs[0])


def test_choosing_without_a_validation_split_is_an_error():
    data = make_data()
    for choice in (KeepBest(), EarlyStopping(2)):
        with pytest.raises(InputError, match="chooses by a validation split, and validation is 0"):
            fit(make_model(data), data, callbacks=[choice], **QUIET)


def test_plateau_lowers_the_rate_by_the_losses_of_the_run():
    data = make_data()
    schedule = plateau(0.1, factor=0.5, patience=0, threshold=1.0 - 1e-9)  # every epoch counts as no better
    history = fit(make_model(data), data, epochs=4, batch_size=16, schedule=schedule, **QUIET)
    assert [row["lr"] for row in history.epochs] == pytest.approx([0.1, 0.1, 0.05, 0.025])


def test_l1_adds_its_gradient():
    data = make_data(16)
    rate, factor = 0.1, 0.01
    model, plain = make_model(data), make_model(data)
    batches = {"epochs": 1, "batch_size": 16, "optimizer": sgd(momentum=0), "schedule": constant(rate)}
    fit(model, data, **batches, objective=Objective(l1=factor), **QUIET)
    before = weights(plain)
    fit(plain, data, **batches, **QUIET)
    for name in ("1.weight", "7.weight"):
        expected = weights(plain)[name] - rate * factor * before[name].sign()
        torch.testing.assert_close(weights(model)[name], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights(model)["7.bias"], weights(plain)["7.bias"])


def test_a_model_that_does_not_fit_the_data_is_one_line():
    data = make_data()
    with pytest.raises(
        SightlineError, match="the model has 5 outputs and the data 3 classes; create the model with"
    ):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), data, **QUIET)
    with pytest.raises(SightlineError, match="the model cannot take images of 8x8 pixels"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(100, 3)), data, **QUIET)


def test_steps_and_epochs_are_written_as_tables(tmp_path):
    data = make_data()
    history = fit(make_model(data), data, epochs=2, batch_size=16, schedule=constant(0.1), **QUIET)
    history.save(tmp_path)
    lines = (tmp_path / "steps.csv").read_text().splitlines()
    assert lines[0] == "step,epoch,lr,loss"
    assert len(lines) == 1 + 2 * 4
    assert lines[5].startswith("5,2,0.1,")
    assert math.isclose(float(lines[1].split(",")[3]), history.steps[0]["loss"], rel_tol=1e-8)


def test_bfloat16_trains_with_float32_weights():
    data = make_data(90)
    model = make_model(data)
    history = fit(
        model,
        data,
        epochs=3,
        batch_size=16,
        schedule=constant(0.2),
        **{**QUIET, "execution": Execution("bfloat16")},
    )
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert history.epochs[-1]["train_loss"] < history.epochs[0]["train_loss"]


def test_a_loss_of_ones_own_is_what_is_minimised():
    data = make_data()
    options = {"epochs": 2, "batch_size": 16, "schedule": constant(0.1), **QUIET}
    smoothed, own = make_model(data), make_model(data)
    expected = fit(smoothed, data, objective=Objective(label_smoothing=0.1), **options)
    smooth = functools.partial(nn.functional.cross_entropy, label_smoothing=0.1)
    history = fit(own, data, objective=smooth, **options)
    assert_same(weights(own), weights(smoothed))
    assert history.steps == expected.steps  # plain cross-entropy in both
    with pytest.raises(InputError, match=r"label_smoothing=1, l1=0.0; use 0 <= label_smoothing < 1"):
        Objective(label_smoothing=1)
    with pytest.raises(InputError, match="belong to cross-entropy"):
        Objective(label_smoothing=0.1, loss=smooth)


def test_epochs_are_shown_where_nobody_else_listens_to_the_log(capsys, caplog):
    data = make_data()
    options = {**QUIET, "epochs": 2, "batch_size": 16}
    fit(make_model(data), data, **options)
    assert capsys.readouterr().out == ""
    fit(make_model(data), data, **options | {"verbose": True})
    assert [line[:9] for line in capsys.readouterr().out.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    with caplog.at_level("INFO", "sightline"):
        fit(make_model(data), data, **options | {"verbose": True})
    assert capsys.readouterr().out == ""
    assert [line[:9] for line in caplog.messages] == ["epoch 1/2", "epoch 2/2"]


def test_a_checkpoint_of_the_format_before_is_refused_in_one_sentence(tmp_path):
    data, path = make_data(), tmp_path / "checkpoint.pt"
    torch.save({"model": make_model(data).state_dict(), "average": None, "dynamics": {}}, path)
    with pytest.raises(DamagedFileError, match=r"was written by sightline 0\.1, whose checkpoints version"):
        fit(make_model(data), data, callbacks=[Checkpoint(path, resume=True)], **QUIET)
    torch.save({"schema": 3, "version": "9.8"}, path)
    with pytest.raises(DamagedFileError, match=r"was written by sightline 9\.8, whose checkpoints version"):
        load_checkpoint(path)


def test_a_checkpoint_opens_without_running_code(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"a": torch.ones(2), "rows": [{"x": 1.5}]})
    assert load_checkpoint(path)["rows"] == [{"x": 1.5}]
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
