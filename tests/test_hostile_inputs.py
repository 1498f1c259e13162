"""Input that nobody meant: each ends in one line that names it, before anything is written."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.cli import main
from sightline.data import cifar
from sightline.files import write_text

SMALL = [
    "--epochs", "1", "--device", "cpu", "--quiet", "--set", "model.name=speednet",
    "--set", "model.options={widths=[4, 4, 4]}", "--set", "training.precision=float32",
    "--set", "analysis.range_test=false", "--set", "analysis.compare_images=2",
    "--set", "analysis.mistakes=2", "--set", "analysis.correct=1", "--set", "analysis.samples=2",
    "--set", "analysis.layers=[]",
]  # fmt: skip


def arrays(count: int = 24, size: int = 16) -> dict[str, np.ndarray]:
    """Three classes of noise, as an `.npz` file holds them."""
    generator = np.random.default_rng(0)
    return {
        "x": generator.integers(0, 256, (count, size, size, 3), np.uint8),
        "y": np.arange(count) % 3,
        "class_names": np.array(["red", "green", "blue"]),
    }


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below `folder` with what it holds."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder to stand in, with a good data set."""
    np.savez(tmp_path / "good.npz", **arrays())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run with everything that a run can have."""
    place = tmp_path_factory.mktemp("finished")
    np.savez(place / "good.npz", **arrays())
    settings = [*SMALL, "--set", "analysis.range_test=true"]
    assert main(["run", "--data", str(place / "good.npz"), *settings, "--out", str(place / "run")]) == 0
    return place / "run"


@pytest.fixture
def run(finished, here) -> Path:
    """A copy of the finished run, to be spoilt."""
    return shutil.copytree(finished, here / "run")


@pytest.fixture(autouse=True)
def no_waiting():
    """A command that waits for ever fails its test."""

    def give_up(number, frame):
        raise AssertionError("the command was still waiting after a minute")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def assert_one_line(code: int, error: str, *words: str) -> None:
    assert code == 1, error
    assert error.startswith("sightline: "), error
    assert error.count("\n") == 1, error
    assert "sightline: unexpected" not in error
    assert "Traceback" not in error
    for word in words:
        assert word in error


def assert_refused(capsys, arguments: list[str], *words: str, folder: Path) -> None:
    """The command ends in one line with `words` in it, and `folder` is as it was."""
    before = tree(folder)
    code = main(arguments)
    assert_one_line(code, capsys.readouterr().err, *words)
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("training.batch_size=9223372036854775808", "training.batch_size is 9223372036854775808"),
        ("training.batch_size=0", "training.batch_size is 0"),
        ("training.batch_size=[]", "training.batch_size is []"),
        ("training.epochs=100000000000000000000000", "training.epochs is 100000000000000000000000"),
        ("training.epochs=1e23", "training.epochs is 1e+23"),
        ("training.seed=18446744073709551616", "training.seed is 18446744073709551616"),
        ("training.patience=1e400", "training.patience"),
        ("training.label_smoothing=nan", "training.label_smoothing is nan"),
        ("training.freeze={fc=1000000000000000000000}", "1000000000000000000000"),
        ("training.freeze={nothing=1}", "'nothing'"),
        ("data.seed=18446744073709551616", "data.seed is 18446744073709551616"),
        ("data.limit=-1", "data.limit is -1"),
        ("data.dir='\x00'", "data.dir"),
        ('data.dir="\\u0000"', "data.dir"),
        ('data.name="\\u0000"', "data.name"),
        ('data.fixes="\\u0000"', "data.fixes"),
        ('name="\\u0000"', "name"),
        ('name="../elsewhere"', "../elsewhere"),
        (f'name="{300 * "n"}"', "nnn"),
        ('model.name="\\u0000"', "model.name is '\\x00'"),
        ("model.name=[]", "model.name is []"),
        ("model.options=3", "model.options is 3"),
        ("model.options.widths=[]", "widths is []"),
        ("model.options.widths=[-1, 2, 3]", "widths.0 is -1"),
        ("model.options.widths=[0, 2, 3]", "widths.0 is 0"),
        ("model.options.widths=[1.5, 2, 3]", "widths.0 is 1.5"),
        ("model.options.widths=[nan, 2, 3]", "widths.0 is nan"),
        ("model.options.widths=[true, 2, 3]", "widths.0 is True"),
        ("model.options.widths=[1, 2]", "[1, 2]"),
        ("model.options.widths=[[1], 2, 3]", "widths.0 is [1]"),
        ("model.options.widths=[1000000000000, 8, 8]", "1000000000000"),
        ("model.options.widths=[10000000000000000000000, 8, 8]", "10000000000000000000000"),
        ("model.options.widths=3", "widths is 3"),
        ("model.options.widths=abc", "'abc'"),
        ("model.options.bn_momentum=nan", "bn_momentum is nan"),
        ("model.options.bn_momentum=7", "bn_momentum is 7"),
        ("model.options.bn_momentum=abc", "'abc'"),
        ("model.options.residual=3", "residual is 3"),
        ("model.options.depth=3", "depth"),
        ("optimizer.name={}", "optimizer.name is {}"),
        ("optimizer.momentum=[]", "momentum is []"),
        ("optimizer.weight_decay=1e308", "1e+308"),
        ("schedule.name=[]", "schedule.name is []"),
        ("schedule.name=3", "schedule.name is 3"),
        ("schedule.max_lr=1e308", "max_lr is 1e+308"),
        ("schedule.max_lr=inf", "max_lr is inf"),
        ("schedule.max_lr=-1", "max_lr is -1"),
        ("schedule.max_lr=[]", "max_lr is []"),
        ("schedule={name='one_cycle', max_lr=0.1, cycle_momentum=3}", "cycle_momentum is 3"),
        ("weight_averaging.name=[1]", "weight_averaging.name is [1]"),
        ("mix.name=[]", "mix.name is []"),
        ("augment={transforms=3}", "transforms is 3"),
        ("augment={transforms='Blur'}", "transforms is 'Blur'"),
        ("augment={transforms=[3]}", "3"),
        ("augment={transforms=[[]]}", "[]"),
        ("augment={transforms=[{name=3}]}", "3"),
        ("augment={transforms=[{p=0.5}]}", "{'p': 0.5}"),
        ("augment={transforms=[{name='OneOf', transforms=3}]}", "3"),
        ("augment={transforms=[{name='HorizontalFlip', p=7}]}", "p=7"),
        ("augment.crop_padding=100000000000000000000", "100000000000000000000"),
        ("augment.cutout_size=-1", "-1"),
        ("analysis.layer=[]", "analysis.layer is []"),
        ("analysis.layers=3", "analysis.layers is 3"),
        ("analysis.compare=[3]", "3"),
        ("analysis.tta=[]", "analysis.tta is []"),
        ("analysis.mistakes=100000000000000000000000", "analysis.mistakes is 100000000000000000000000"),
        ("analysis=3", "analysis"),
        ("training=[]", "training"),
        ("=", "'='"),
        ("training..epochs=3", "training"),
    ],
)
def test_a_setting_that_cannot_be_meant(setting, word, here, capsys):
    command = ["run", "--data", "good.npz", *SMALL, "--set", setting, "--out", "out"]
    assert_refused(capsys, command, word, folder=here)


@pytest.mark.parametrize("option", [("--epochs", 10**23), ("--seed", 2**64)])
def test_an_option_that_cannot_be_meant(option, here, capsys):
    name, value = option
    command = ["run", "--data", "good.npz", *SMALL, name, str(value), "--out", "out"]
    assert_refused(capsys, command, str(value), folder=here)


@pytest.mark.parametrize(
    "text",
    ["", "[", "name = 3", "schedule = 3", "name = 'a'\nschedule = []", f"a = {10000 * '['}{10000 * ']'}",
     "\ufeffname = 'a'", "name = 'a'\nname = 'b'"],
)  # fmt: skip
def test_a_recipe_that_is_none(text, here, capsys):
    (here / "mine.toml").write_text(text, encoding="utf-8")
    assert_refused(capsys, ["run", "mine.toml", *SMALL, "--out", "out"], folder=here)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"y": np.array([0, 1, 2**40] * 8), "class_names": None}, str(2**40)),
        ({"y": np.array([0, 1, 2**40] * 8)}, str(2**40)),
        ({"y": np.array([0, 1, 2**63] * 8, np.uint64), "class_names": None}, str(2**63)),
        ({"y": np.array([0, 1, -5] * 8)}, "-5"),
        ({"y": np.zeros(24)}, "float64"),
        ({"y": np.zeros(24, int), "class_names": None}, "class"),
        ({"y": np.zeros(24, int), "class_names": np.array(["red"])}, "class"),
        ({"y": np.zeros(7, int)}, "(7,)"),
        ({"x": np.zeros((24, 0, 0, 3), np.uint8)}, "0x0"),
        ({"x": np.zeros((24, 16, 0, 3), np.uint8)}, "16x0"),
        ({"x": np.zeros((0, 16, 16, 3), np.uint8), "y": np.zeros(0, int)}, "image"),
        ({"x": np.zeros((24, 16, 16, 3))}, "float64"),
        ({"x": np.array([None] * 24, object)}, "npz"),
        ({"class_names": np.array(["red", "gr\ud800n", "blue"])}, "class"),
        ({"class_names": np.array("red")}, "class_names"),
        ({"class_names": np.array([["red", "green", "blue"]])}, "class_names"),
        ({"class_names": np.array(["red", "red", "blue"])}, "'red'"),
        ({"x_test": np.zeros((3, 8, 8, 3), np.uint8), "y_test": np.arange(3)}, "(8, 8, 3)"),
        ({"x_test": np.zeros((3, 16, 16, 3), np.uint8)}, "y_test"),
    ],
)
def test_an_npz_file_that_is_no_data_set(changes, word, here, capsys):
    held = {name: array for name, array in (arrays() | changes).items() if array is not None}
    np.savez(here / "odd.npz", **held)
    assert_refused(capsys, ["run", "--data", "odd.npz", *SMALL, "--out", "out"], word, folder=here)


@pytest.mark.parametrize(
    "shape", ["(1000000, 2048, 2048, 3)", "(9223372036854775807, 9, 9, 3)", "(-1, 9, 9, 3)"]
)
def test_an_npz_file_that_claims_more_than_it_holds(shape, here, capsys):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (118 - len(header) - 1) + b"\n"
    with zipfile.ZipFile(here / "odd.npz", "w") as file:
        file.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(10))
    command = ["run", "--data", "odd.npz", *SMALL, "--out", "out"]
    assert_refused(capsys, command, "odd.npz is not a whole .npz file", folder=here)


@pytest.mark.parametrize("name", ["gr\ud800n", "", 3, None, ["a"]])
def test_class_names_of_cifar_that_are_no_text(name, here, monkeypatch, capsys):
    small = dataclasses.replace(cifar.ARCHIVES["cifar10"], rows=(4, 4))
    monkeypatch.setitem(cifar.ARCHIVES, "cifar10", small)
    folder = here / "cifar-10-batches-py"
    folder.mkdir()
    batch = {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 3]}
    tables = dict.fromkeys([*small.train, small.test], batch)
    tables["batches.meta"] = {"label_names": [*"abcdefghi", name]}
    for member, table in tables.items():
        (folder / member).write_bytes(pickle.dumps(table, protocol=2))
    command = ["run", "--data", "cifar10", "--data-dir", ".", *SMALL, "--out", "out"]
    assert_refused(capsys, command, "label_names", folder=here)


def test_images_that_are_too_small_for_the_model(here, capsys):
    np.savez(here / "tiny.npz", **arrays(size=4))
    for model in ("speednet", "custom_resnet"):
        options = ["--set", f"model.name={model}", "--set", "model.options={}"]
        command = ["run", "--data", "tiny.npz", *SMALL, *options, "--out", "out"]
        assert_refused(capsys, command, "4x4", folder=here)
    assert_refused(
        capsys, ["find-lr", "shapes-quick", "--data", "tiny.npz", "--device", "cpu"], "4x4", folder=here
    )


# What can stand where a run's file was.
SPOILT = {
    "empty": b"",
    "a list": b"[]",
    "a number": b"3",
    "nothing": b"null",
    "deep": 10_000 * b"[" + 10_000 * b"]",
    "half a character": b'{"method": "\\ud800", "name": "\\ud800", "best": "\\ud800"}',
    "bytes": b"\xff\xfe\x00",
    "an empty table": b"{}",
    "another table": b'{"schema": "x", "a": [1, {"b": null}]}',
}
# The files of a run, and the commands that cannot do without them.
READERS = {
    "explanations.json": ("report", "audit", "explain"),
    "faithfulness.json": ("report", "explain --method auto"),
    "environment.json": ("report", "resume"),
    "audit.json": ("report",),
    "metrics.json": ("report",),
    "data.json": ("report",),
    "model.json": ("report", "analyze", "explain", "audit"),
    "range_test.json": ("report",),
    "predictions.parquet": ("report", "compare"),
    "audit_test.parquet": ("report",),
    "audit_neighbors.npz": ("report",),
    "gallery.npz": ("report",),
    "explanations.npz": ("report",),
    "samples.npz": ("report",),
    "dynamics.npz": ("report", "audit"),
    "history.csv": ("report", "analyze"),
    "steps.csv": ("report",),
    "model.safetensors": ("analyze", "explain", "audit"),
    "checkpoint.pt": ("resume",),
    "recipe.toml": ("report", "analyze", "resume", "audit"),
}
# An empty table says nothing, and these are files that may say nothing; text is what two of them hold.
FINE = {
    ("metrics.json", "an empty table", "report"), ("metrics.json", "another table", "report"),
    ("faithfulness.json", "an empty table", "explain --method auto"), ("recipe.toml", "empty", "report"),
    ("explanations.json", "an empty table", "audit"), ("explanations.json", "another table", "audit"),
    ("explanations.json", "an empty table", "explain"), ("explanations.json", "another table", "explain"),
    ("environment.json", "an empty table", "report"), ("environment.json", "another table", "report"),
    ("environment.json", "an empty table", "resume"), ("environment.json", "another table", "resume"),
    ("range_test.json", "an empty table", "report"), ("range_test.json", "another table", "report"),
}  # fmt: skip
# What the report cannot do without; the rest it shows if it is there.
REQUIRED = {"predictions.parquet", "audit_test.parquet", "recipe.toml"}


def command_line(command: str, run: Path, picture: Path) -> list[str]:
    name, *options = command.split()
    device = ["--device", "cpu"]
    return {
        "report": ["report", str(run)],
        "analyze": ["analyze", str(run), "--quiet", *device],
        "audit": ["audit", str(run), "--quiet", *device],
        "compare": ["compare", str(run), str(run)],
        "explain": ["explain", str(run), str(picture), "--out", str(picture.parent / "maps"), *device],
        "resume": ["run", "--resume", str(run), "--quiet", *device],
    }[name] + options


@pytest.mark.parametrize("what", SPOILT)
@pytest.mark.parametrize("file", READERS)
def test_a_file_of_a_run_that_is_something_else(file, what, run, here, capsys):
    picture = here / "one.png"
    Image.fromarray(arrays()["x"][0]).save(picture)
    (run / file).write_bytes(SPOILT[what])
    for command in READERS[file]:
        if (file, what, command) in FINE:
            continue
        assert_refused(capsys, command_line(command, run, picture), file, folder=here)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("file", [name for name in READERS if name != "recipe.toml"])
def test_a_file_of_a_run_that_is_a_pipe_or_a_folder(file, run, here, capsys):
    picture = here / "one.png"
    Image.fromarray(arrays()["x"][0]).save(picture)
    for make in (os.mkfifo, os.mkdir):
        (run / file).unlink(missing_ok=True)
        make(run / file)
        for command in READERS[file]:
            if command == "report" and file not in REQUIRED:
                continue
            code = main(command_line(command, run, picture))
            assert_one_line(code, capsys.readouterr().err, file)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"class_names": [1, 2, 3]}, "class_names"),
        ({"class_names": "red"}, "class_names"),
        ({"class_names": [["red"], "b", "c"]}, "class_names"),
        ({"class_names": []}, "class_names"),
        ({"class_names": ["\ud800", "b", "c"]}, "model.json"),
        ({"image_size": [16]}, "image_size"),
        ({"image_size": [0, 0]}, "image_size"),
        ({"image_size": 16}, "image_size"),
        ({"image_size": [10**30, 10**30]}, "image_size"),
        ({"options": []}, "options"),
        ({"options": {"widths": []}}, "widths"),
        ({"name": []}, "name"),
        ({"name": "resnet19"}, "resnet19"),
    ],
)
def test_a_model_card_that_is_none(change, word, run, here, capsys):
    card = json.loads((run / "model.json").read_text()) | change
    (run / "model.json").write_text(json.dumps(card))
    Image.fromarray(arrays()["x"][0]).save(here / "one.png")
    for command in ("explain", "analyze"):
        assert_refused(capsys, command_line(command, run, here / "one.png"), word, folder=here)


def test_predictions_with_a_label_that_is_no_class(run, here, capsys):
    import pyarrow.parquet as pq

    path = run / "predictions.parquet"
    table = pq.read_table(path)
    labels = table.column("label").to_pylist()
    place = table.schema.get_field_index("label")
    import pyarrow as pa

    pq.write_table(table.set_column(place, "label", pa.array([99, *labels[1:]])), path)
    for command in ("report", "compare"):
        assert_refused(capsys, command_line(command, run, here), "predictions.parquet", folder=here)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_explain_does_not_wait_for_a_pipe(run, here, capsys):
    os.mkfifo(here / "pipe.png")
    assert_refused(capsys, command_line("explain", run, here / "pipe.png"), "pipe.png", "file", folder=here)


@pytest.mark.parametrize("bytes_of_stem", [200, 222, 240, 251])
@pytest.mark.parametrize("letter", ["n", "é"])
def test_a_picture_with_a_long_name_is_explained(bytes_of_stem, letter, run, here, capsys):
    stem = letter * (bytes_of_stem // len(letter.encode()))
    picture = here / f"{stem}.png"
    Image.fromarray(arrays()["x"][0]).save(picture)
    other = here / "other"
    other.mkdir()
    shutil.copy(picture, other)
    command = ["explain", str(run), str(picture), str(other / picture.name), "--json", "--device", "cpu"]
    assert main([*command, "--out", str(here / "maps")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len({row["heatmap"] for row in rows}) == 2
    for row in rows:
        with Image.open(row["heatmap"]) as image:
            assert image.width > 16


def folder_of_pictures(root: Path, names: tuple[str, ...] = ("red", "green")) -> Path:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((16, 16, 3), 40 * number + i, np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def bytes_in_names(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
        (tmp_path / os.fsdecode(b"caf\xe9")).rmdir()
    except OSError:
        pytest.skip("this file system takes no such name")


def test_a_class_folder_whose_name_is_no_utf8(bytes_in_names, here, capsys):
    folder_of_pictures(here / "pictures", ("red", os.fsdecode(b"caf\xe9")))
    command = ["run", "--data", "pictures", *SMALL, "--out", "out"]
    assert_refused(capsys, command, "caf\\xe9", "UTF-8", folder=here)


def test_pictures_whose_names_are_no_utf8(bytes_in_names, here, run, capsys):
    root = folder_of_pictures(here / "pictures")
    shutil.copy(root / "red" / "0.png", root / "red" / os.fsdecode(b"caf\xe9.png"))
    (root / "red" / os.fsdecode(b"broken\xe9.png")).write_bytes(b"no picture")
    assert main(["data", "pictures"]) == 0
    assert "skipped red/broken\\xe9.png" in capsys.readouterr().out
    assert main(["run", "--data", "pictures", *SMALL, "--out", "out"]) == 0
    assert "skipped" in (here / "out" / "data.json").read_text()
    picture = root / "red" / os.fsdecode(b"caf\xe9.png")
    capsys.readouterr()
    before = tree(here)
    code = main(command_line("explain", run, picture))
    assert_one_line(code, capsys.readouterr().err, "caf\\xe9.png", "UTF-8")
    assert tree(here) == before


@pytest.mark.parametrize("command", ["run --out", "run --resume", "report", "train --data", "data"])
def test_an_argument_that_is_no_utf8(command, here, capsys):
    assert_refused(capsys, [*command.split(), "caf\udce9"], "caf\\xe9", "UTF-8", folder=here)


@pytest.mark.parametrize("command", ["run --out", "run --resume", "report", "run --data", "analyze", "data"])
def test_an_argument_with_a_nul(command, here, capsys):
    assert_refused(capsys, [*command.split(), "a\x00b"], "a\\x00b", folder=here)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b"null", 10_000 * b"[" + 10_000 * b"]", b"\xff", b"{}"]
)
def test_decisions_that_are_none(content, here, capsys):
    (here / "fixes.json").write_bytes(content)
    command = ["run", "--data", "good.npz", *SMALL, "--fixes", "fixes.json", "--out", "out"]
    assert_refused(capsys, command, "fixes.json", folder=here)


def test_a_full_disk_names_the_file_and_what_to_do(here, capsys, monkeypatch):
    real = os.fsync

    def full_from(name):
        def fsync(descriptor):
            if name in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
                raise OSError(28, os.strerror(28))
            return real(descriptor)

        return fsync

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    command = ["run", "--data", "good.npz", *SMALL, "--out", "out"]
    monkeypatch.setattr(os, "fsync", full_from("recipe.toml"))
    assert_refused(capsys, command, "recipe.toml", "(No space left on device); make room", folder=here)
    monkeypatch.setattr(os, "fsync", full_from("predictions.parquet"))
    assert_one_line(
        main(command), capsys.readouterr().err,
        "predictions.parquet cannot be written (No space left on device); make room",
        "sightline run --resume out",
    )  # fmt: skip
    assert not list(here.rglob("*.partial"))


def test_text_with_half_a_character_is_not_written(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a", "\ud800")
    assert not list(tmp_path.iterdir())
