"""Two processes do what one does: the same steps, tables and files; one resumes what the other began."""

from __future__ import annotations

import copy
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import distributed_jobs as jobs
import numpy as np
import pytest
import torch
from torch import nn

import sightline as sl
from sightline import distributed
from sightline.cli import main
from sightline.data import Augmentation, ResidentBatches, StreamedBatches
from sightline.data.dataset import part_of
from sightline.errors import SightlineError
from sightline.models import choose_device
from sightline.predictions import predict, read_predictions
from sightline.training.callbacks import Lookahead
from sightline.training.optimizers import set_lr
from sightline.training.schedules import Progress
from sightline.training.trainer import hold_out

JOB = Path(jobs.__file__)
SMALL = [
    "shapes-quick", "--device", "cpu", "--set", "model.options={widths=[4, 8, 8]}",
    "--set", "training.precision=float32", "--set", "data.limit=101", "--set", "training.batch_size=32",
    "--set", "analysis.range_test=false", "--set", "analysis.compare_images=0",
    "--set", "analysis.mistakes=3", "--set", "analysis.correct=1", "--set", "analysis.samples=2",
]  # fmt: skip


def start_two(command: list[str], folders: list[Path]) -> list[subprocess.Popen]:
    """Start a process in each folder as torchrun would, without its seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank, folder in enumerate(folders):
        group = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        environment = {**os.environ, **group, "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, *command], env=environment, cwd=folder, **pipes))
    return started


def finish(started: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    try:
        texts = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *text) for process, text in zip(started, texts, strict=True)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    model, history = jobs.trained(folder, "one")
    return folder, model, history


@pytest.fixture(scope="module")
def two(one):
    """What each of two processes had at the end of `distributed_jobs.main`."""
    folder = one[0]
    for rank, (code, out, err) in enumerate(finish(start_two([str(JOB), str(folder)], [folder] * 2))):
        assert (code, out) == (0, ""), f"process {rank}: {err}"
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(
            tensor, second[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def assert_same_rows(rows: list[dict], others: list[dict]) -> None:
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {"seconds", "images_per_second"}:
            exact = name.endswith("accuracy") or name in ("epoch", "step", "lr")
            assert row[name] == (other[name] if exact else pytest.approx(other[name], rel=1e-5)), name


def test_two_processes_take_the_steps_of_one_with_augmentation_and_a_last_batch_of_one_image(one, two):
    _, model, history = one
    assert len(history.steps) == 3 * 4
    for each in two:
        assert_same_rows(each["steps"], history.steps)
        assert_same_rows(each["epochs"], history.epochs)
        assert each["kept"] == history.kept
        assert_close(each["model"], model.state_dict())
        for name in ("margin", "probability"):
            whole = torch.from_numpy(getattr(history.dynamics, name))
            assert whole.shape == (3, 61)
            assert (~whole.isnan()).sum() == 3 * 49
            torch.testing.assert_close(each[name], whole, rtol=2e-3, atol=2e-3, equal_nan=True)
            torch.testing.assert_close(each[f"resumed_{name}"], whole, rtol=2e-3, atol=2e-3, equal_nan=True)


def test_both_processes_end_with_the_same_bits(two):
    first, second = two
    for name in ("model", "resumed", "normed", "dropped"):
        for key, tensor in first[name].items():
            assert torch.equal(tensor, second[name][key]), (name, key)
    assert first["epochs"] != second["epochs"]  # but for their clocks
    assert_same_rows(first["epochs"], second["epochs"])


def test_what_one_process_began_two_bring_to_its_end(one, two):
    _, model, history = one
    assert len(two[0]["resumed_steps"]) == len(history.steps)
    assert_same_rows(two[0]["resumed_epochs"], history.epochs)
    assert_close(two[0]["resumed"], model.state_dict())


def test_what_two_processes_began_one_brings_to_its_end(one, two):
    folder, model, history = one
    checkpoint = torch.load(folder / "two-cut.pt", weights_only=True)
    assert list(checkpoint["model"]) == list(model.state_dict())  # nothing like "module." before a name
    assert checkpoint["position"] == jobs.CUT_AT - 4
    assert checkpoint["sizes"].tolist() == [16, 16, 0, 0]
    resumed, again = jobs.trained(folder, "two-cut", resume=True)
    assert_same_rows(again.epochs, history.epochs)
    assert_same_rows(again.steps, history.steps)
    assert_close(resumed.state_dict(), model.state_dict())


def copy_parameters(source: nn.Module, target: nn.Module) -> None:
    for own, other in zip(target.parameters(), source.parameters(), strict=True):
        own.data.copy_(other.data)


@pytest.mark.parametrize(
    ("name", "averaged"),
    [("normed", False), ("averaged", True)],
    ids=["no average", "lookahead"],
)
def test_with_batch_norm_the_job_equals_a_slow_loop_over_the_parts(two, name, averaged):
    data, options = jobs.make_data(), jobs.OPTIONS
    model = jobs.make_model(data, norm=True)
    kept, _ = hold_out(data.train, options["validation"], options["seed"])
    drawn = {"augmentation": options["augmentation"], "fill": data.mean.tolist(), "seed": options["seed"]}
    batches = ResidentBatches(data.train.take(kept), batch_size=16, drop_last=False, **drawn)
    optimizer = options["optimizer"](model)
    replicas = [copy.deepcopy(model).train() for _ in range(2)]
    averages = [Lookahead(**jobs.LOOKAHEAD) for _ in replicas] if averaged else []
    for slow, replica in zip(averages, replicas, strict=averaged):
        slow.start(replica)
    for step in range(3 * 4):
        images, labels, *_ = next(batches.epoch(step // 4, start=step % 4))
        half = (len(labels) + 1) // 2
        parts = [(images[:half], labels[:half]), (images[half:], labels[half:])]
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for replica, (pictures, classes) in zip(replicas, parts, strict=True):
            copy_parameters(model, replica)
            if len(classes):
                logits = replica(pictures)
                loss = nn.functional.cross_entropy(logits, classes, label_smoothing=0.1, reduction="sum")
                found = torch.autograd.grad(loss / len(labels), list(replica.parameters()))
                for parameter, gradient in zip(model.parameters(), found, strict=True):
                    parameter.grad += gradient
        set_lr(optimizer, options["schedule"](Progress(step, 4, 3)), None)
        optimizer.step()
        for replica in replicas if averages else ():
            copy_parameters(model, replica)
        for replica, slow in zip(replicas, averages, strict=bool(averages)):
            slow.update(replica, step + 1, 12)  # the parameters of both stay equal, the statistics differ
            copy_parameters(replica, model)
        for statistic in ("running_mean", "running_var") if step % 4 == 3 else ():
            own = [getattr(replica[2], statistic) for replica in replicas]
            assert not torch.equal(*own)
            slows = [slow.slow[f"2.{statistic}"] for slow in averages]
            for copies in ([*own, getattr(model[2], statistic)], slows):
                mean = sum(copies[:2]) / 2
                for place in copies:
                    place.copy_(mean)
    expected = model.state_dict() | {"2.num_batches_tracked": torch.tensor(12)}
    assert_close(two[0][name], expected)


def test_dropout_goes_on_where_it_was_cut_off(two):
    for name, tensor in two[0]["whole"].items():
        assert torch.equal(tensor, two[0]["dropped"][name]), name


def test_rows_are_predicted_in_shares_and_put_together_in_data_order(one, two):
    _, model, _ = one
    data = jobs.make_data()
    expected = predict(model, data.test).logits
    for each in two:
        whole, single = each["logits"]  # of 31 images, and of one, of which process 1 has no part
        np.testing.assert_allclose(whole.numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(single.numpy(), expected[:1], atol=1e-5)


def test_the_first_process_alone_tells_of_the_steps_of_the_whole_batch(two):
    sizes = [16, 16, 16, 1]
    assert two[0]["seen"] == [(step, sizes[step % 4]) for step in range(12)]
    assert two[1]["seen"] == []


def test_what_fails_in_one_process_fails_in_all(two):
    own, others = two[0]["messages"], two[1]["messages"]
    assert own == [
        "SightlineError: no such recipe", "ValueError: two\nlines", "SightlineError: no such picture",
    ]  # fmt: skip
    assert others == [
        "SightlineError: no such recipe",
        "SightlineError: process 0 failed: ValueError: two",
        "SightlineError: no such picture",
    ]
    for each in two:
        assert (each["ranks"], each["agreed"], each["total"].tolist()) == ([0, 1], 7, [3])


def test_one_process_is_a_group_of_itself():
    assert (distributed.size(), distributed.rank(), distributed.leads()) == (1, 0, True)
    assert distributed.all_do(lambda: 5) == [5]
    assert distributed.leader_does(lambda: 6) == distributed.machine_first(lambda: 6) == 6
    tensor = torch.ones(2)
    assert distributed.total(tensor) is tensor


def test_several_processes_do_not_share_a_device(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(SightlineError, match="'cuda:0' cannot serve 4 processes; use cuda, which gives each"):
        choose_device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(SightlineError, match="process 2 of this machine has no GPU of its own, there are 2;"):
        choose_device("cuda")


@pytest.mark.parametrize(("count", "parts"), [(7, 3), (1, 4), (16, 4), (5, 1), (0, 2)])
def test_parts_are_the_whole_in_order_and_of_even_sizes(count, parts):
    cut = [list(range(count))[part_of(count, part, parts)] for part in range(parts)]
    assert [row for rows in cut for row in rows] == list(range(count))
    sizes = [len(rows) for rows in cut]
    assert max(sizes) - min(sizes) <= 1
    assert sizes[0] == max(sizes)


def test_the_parts_of_a_batch_are_the_batch_and_so_is_their_weighted_mean():
    data = jobs.make_data(train=34)
    options = {"batch_size": 8, "fill": data.mean.tolist(), "seed": 3, "drop_last": False}
    options["augmentation"] = Augmentation(crop_padding=2, flip="random", cutout_size=3)
    whole = list(ResidentBatches(data.train, **options).epoch(2))
    shards = [ResidentBatches(data.train, **options, shard=(part, 3)) for part in range(3)]
    weights = [[shard.weight(step) for shard in shards] for step in range(5)]
    assert weights == [[9 / 8, 9 / 8, 6 / 8]] * 4 + [[1.5, 1.5, 0]]
    for batch, own_weights, *cut in zip(whole, weights, *(s.epoch(2) for s in shards), strict=True):
        own = [part for part, weight in zip(cut, own_weights, strict=True) if weight]
        assert torch.equal(torch.cat([part.images for part in own]), batch.images)
        assert torch.equal(torch.cat([part.indices for part in own]), batch.indices)
        mean = sum(w * part.images.mean() for w, part in zip(own_weights, cut, strict=True)) / 3
        torch.testing.assert_close(mean, batch.images.mean())


def test_streamed_parts_take_the_same_images_with_draws_of_their_own():
    data = jobs.make_data(train=34)
    flip = Augmentation(flip="random").to_albumentations((8, 8), fill=(0, 0, 0))
    options = {"batch_size": 8, "fill": (0, 0, 0), "seed": 3, "num_workers": 0}
    whole = list(StreamedBatches(data.train, flip, **options).epoch(0))
    parts = [list(StreamedBatches(data.train, flip, **options, shard=(part, 2)).epoch(0)) for part in (0, 1)]
    flipped = []
    for batch, *cut in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([part.indices for part in cut]), batch.indices)
        plain = [torch.from_numpy(data.train.images[part.indices]).permute(0, 3, 1, 2) / 255 for part in cut]
        flipped.append([(part.images != p).any((1, 2, 3)) for part, p in zip(cut, plain, strict=True)])
    first, second = (torch.cat(rows) for rows in zip(*flipped, strict=True))
    assert 2 < first.sum() < 14
    assert 2 < second.sum() < 14
    assert not torch.equal(first, second)


@pytest.mark.slow
def test_a_run_of_two_is_written_and_told_by_the_first_alone(tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    command = ["-m", "sightline", "run", *SMALL, "--epochs", "2", "--out", "made"]
    (code, out, err), *other = finish(start_two(command, folders))
    assert (code, other) == (0, [(0, "", "")]), err
    assert err == ""
    lasting = [line for line in out.splitlines() if not line.endswith("...")]  # else the machine was busy
    assert [line.split()[0] for line in lasting] == [
        "made:",
        "training",
        "epoch",
        "epoch",
        "test",
        "audit:",
        "report:",
    ]
    assert list(folders[1].iterdir()) == []

    made = sl.load_run(folders[0] / "made")
    assert made.report.exists()
    predictions = read_predictions(made.folder / "predictions.parquet")
    alone = predict(made.model(), made.data().test)  # row by row what one process predicts
    np.testing.assert_allclose(predictions.logits, alone.logits, atol=1e-5)
    np.testing.assert_array_equal(predictions.labels, alone.labels)
    assert made.metrics["accuracy"] == predictions.correct.mean()
    assert made.history["test_accuracy"].iloc[-1] == pytest.approx(made.metrics["accuracy"], rel=1e-8)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("ended", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_ends_the_job_in_a_line_and_one_goes_on(tmp_path, capsys, ended):
    command = ["-m", "sightline", "train", *SMALL, "--epochs", "400", "--out", "made"]
    started = start_two(command, [tmp_path] * 2)
    checkpoint, until = tmp_path / "made" / "checkpoint.pt", time.monotonic() + 100
    while not checkpoint.exists() and started[0].poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    started[1].send_signal(ended)
    (code, _, err), (killed, _, last) = finish(started)
    said = (err + last).splitlines()
    assert code == 1
    assert killed == (-ended if ended == signal.SIGKILL else 1)
    assert len(said) == 1
    reason = "another process of this job ended" if ended == signal.SIGKILL else "stopped"
    assert said[0].startswith(f"sightline: {reason}, and what was done is kept; go on")
    assert said[0].endswith("sightline run --resume made")
    done = len(sl.load_run(tmp_path / "made").history)
    recipe = tmp_path / "made" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 400", f"epochs = {done + 1}"))
    assert main(["train", "--resume", str(tmp_path / "made"), "--device", "cpu"]) == 0
    assert f"epoch {done + 1}/{done + 1}" in capsys.readouterr().out


def test_torchrun_starts_it_and_an_error_is_told_once(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "sightline", "run", *SMALL, "--data", "nowhere", "--out", "made"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    told = [line for line in done.stderr.splitlines() if line.startswith("sightline: ")]
    assert done.returncode == 1
    assert len(told) == 1, done.stderr
    assert told[0].startswith("sightline: recipe: data.name: no data set 'nowhere'")
    assert list(tmp_path.iterdir()) == []
