"""Precision and memory format chosen by measuring: what is tried and taken; all else stays."""

from __future__ import annotations

import json

import pytest
import torch
from training_cases import QUIET, assert_same, make_data, make_model, state

import sightline as sl
from sightline.errors import InputError, SightlineError
from sightline.models import keep_freed_memory
from sightline.runs import train
from sightline.training import Callback, Checkpoint, Execution, fit, measure_execution

BF16, FLOAT = "bfloat16", "float32"
LAST, CONTIGUOUS = "channels_last", "contiguous"


@pytest.fixture
def rates(monkeypatch):
    """The rates that a measurement would find, and the order in which it asked for them."""
    found, asked = {}, []

    def rate(model, optimizer, images, labels, way, timed):
        asked.append(way)
        return found[way]

    monkeypatch.setattr("sightline.training.execution._speed", rate)
    monkeypatch.setattr("sightline.training.execution.choose_precision", lambda name, device: BF16)
    return found, asked


@pytest.mark.parametrize(
    ("measured", "chosen"),
    [
        ((100, 50, 80), (BF16, LAST)),
        ((100, 109, 105), (BF16, LAST)),  # not by a tenth
        ((100, 120, 125), (FLOAT, LAST)),
        ((100, 120, 140), (FLOAT, CONTIGUOUS)),
        ((100, 60, 140), (BF16, CONTIGUOUS)),
    ],
)
def test_the_usual_way_stays_unless_another_is_a_tenth_faster(rates, measured, chosen):
    found, asked = rates
    best = FLOAT if chosen[0] == FLOAT else BF16
    found |= dict(zip([(BF16, LAST), (FLOAT, LAST), (best, CONTIGUOUS)], measured, strict=True))
    data = make_data()
    execution = measure_execution(make_model(data), data, batch_size=8, steps=500, device="cpu")
    assert (execution.precision, execution.memory_format) == chosen
    assert execution.images_per_second == found
    assert asked == list(found)


def test_a_named_memory_format_is_not_measured_against(rates):
    found, asked = rates
    found |= {(BF16, CONTIGUOUS): 100.0, (FLOAT, CONTIGUOUS): 130.0}
    data = make_data()
    execution = measure_execution(
        make_model(data), data, batch_size=8, steps=500, memory_format=CONTIGUOUS, device="cpu"
    )
    assert (execution.precision, execution.memory_format) == (FLOAT, CONTIGUOUS)
    assert asked == list(found)
    assert execution.describe() == "float32, contiguous: 130 images/s; bfloat16, contiguous 0.77 of it"


def test_measuring_leaves_model_gradients_and_random_state_as_they_were():
    data = make_data()
    model = make_model(data).eval()
    before, random = state(model), torch.get_rng_state()
    execution = measure_execution(model, data, batch_size=16, steps=300, device="cpu")
    assert_same(state(model), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert len(execution.images_per_second) in (2, 3)  # two where bfloat16 is not native
    assert execution.images_per_second[execution.precision, execution.memory_format] * 1.1 >= max(
        execution.images_per_second.values()
    )


def test_a_short_training_is_not_measured_for():
    data = make_data()
    execution = measure_execution(make_model(data), data, batch_size=16, steps=299, device="cpu")
    assert execution.images_per_second == {}
    assert execution.memory_format == "channels_last"
    assert Execution(FLOAT, LAST).describe() == "float32, channels_last (not measured)"


def test_a_memory_format_changes_no_more_than_rounding():
    data = make_data()
    models = {layout: make_model(data) for layout in (LAST, CONTIGUOUS)}
    for layout, model in models.items():
        fit(model, data, epochs=1, batch_size=12, **QUIET | {"execution": Execution("float32", layout)})
    first, second = (state(model) for model in models.values())
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)
    assert models[CONTIGUOUS].block1.conv1.weight.is_contiguous()
    assert models[LAST].block1.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(
        SightlineError, match="memory format 'nhwc' is not known; use auto, channels_last, con"
    ):
        fit(make_model(data), data, **QUIET | {"execution": Execution("float32", "nhwc")})


def test_a_run_keeps_its_choice_and_a_resumed_one_does_not_choose_anew(tmp_path, monkeypatch, caplog):
    calls = []

    def once(*arguments, **options):
        calls.append(options)
        return Execution(FLOAT, CONTIGUOUS, {(FLOAT, CONTIGUOUS): 2.0, (FLOAT, LAST): 1.0})

    monkeypatch.setattr("sightline.runs.pipeline.measure_execution", once)
    small = [
        "model.options={widths=[8, 8, 8]}", "training.epochs=1", "data.limit=200",
        "analysis.range_test=false", "analysis.compare_images=0",
        "analysis.mistakes=2", "analysis.correct=1", "analysis.samples=2", "analysis.tta='mirror_shifts'",
    ]  # fmt: skip
    caplog.set_level("INFO", "sightline")
    run = sl.run("shapes-quick", changes=small, out=tmp_path / "run", device="cpu")
    assert [call["steps"] for call in calls] == [1]
    kept = sl.load_run(run.folder).recipe.training
    assert (kept.precision, kept.memory_format) == (FLOAT, CONTIGUOUS)
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["execution"] == "float32, contiguous: 2 images/s; float32, channels_last 0.50 of it"
    assert f"training in {environment['execution']}" in caplog.messages
    # Both accuracies, from one pass over the copies.
    found = sl.predictions.predict_tta(run.model(), run.data().test, tta="mirror_shifts")
    assert run.metrics["accuracy"] == found.plain.correct.mean()
    assert run.metrics["accuracy_with_tta"] == found.mean.correct.mean()
    assert run.metrics["tta"] == "mirror_shifts"
    assert any(
        line.endswith(f"mistakes in {len(found.plain)} images") and "% with test-time augmentation: m" in line
        for line in caplog.messages
    )

    resumed = sl.load_run(run.folder)
    train(resumed, resumed.data(), device="cpu")
    assert len(calls) == 1


def test_keeping_freed_memory_can_be_asked_for_anywhere():
    assert keep_freed_memory() is None
    assert float(torch.ones(1000, 1000).sum()) == 1e6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, about itself
def test_compiled_steps_train_to_the_same_weights_and_resume(tmp_path):
    data = make_data()
    plain, made, resumed = make_model(data), make_model(data), make_model(data)
    train_two = {
        "epochs": 2,
        "batch_size": 20,
        "verbose": False,
        "device": "cpu",
    }
    fit(plain, data, execution=Execution(FLOAT, LAST), **train_two)
    compiled = Execution(FLOAT, LAST, compiled=True)
    history = fit(made, data, execution=compiled, **train_two)
    for one, other in zip(plain.parameters(), made.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), made.parameters(), strict=True))

    class StopAfterOne(Callback):
        def on_epoch_end(self, trainer):
            if trainer.epoch == 1:
                raise KeyboardInterrupt

    kept = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(
            make_model(data),
            data,
            execution=compiled,
            callbacks=[Checkpoint(kept), StopAfterOne()],
            **train_two,
        )
    again = fit(resumed, data, execution=compiled, callbacks=[Checkpoint(kept, resume=True)], **train_two)
    assert_same(state(made), state(resumed))
    assert [row["train_loss"] for row in again.epochs] == [row["train_loss"] for row in history.epochs]


def test_without_a_compiler_nothing_begins(monkeypatch, tmp_path):
    def fails(function):
        raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(InputError, match=r"cannot compile here: no C\+\+ compiler; install a C\+\+ compiler"):
        sl.run("shapes-quick", changes=["training.compile=true", "data.limit=64"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
