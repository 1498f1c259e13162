"""A model answers for any number of picture files, block by block; killed, it goes on where it was.

predict_pictures("runs/probe-1", ["photos/"], "answers.csv")
predict_pictures("model.onnx", ["inbox/*.jpg"], "answers.parquet")      # without torch
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sightline import logs
from sightline.data.image_files import picture_suffixes, read_hashed
from sightline.deploy.answers import AnswerRules, answer_table, run_rules
from sightline.errors import DamagedFileError, InputError, MissingExtraError, NotFoundError
from sightline.files import atomic_path, harmless_cell, hold, shown_name, write_atomic
from sightline.runs.folders import existing_folder

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

log = logging.getLogger(__name__)

BLOCK = 256  # pictures that are lost at most when the process is killed
_BATCH = 32
_PLAN = "plan.json"

Answer = Callable[[np.ndarray], np.ndarray]
"""uint8 images (B, H, W, 3) to logits (B, C)."""


@dataclass(frozen=True)
class Answered:
    """What `predict_pictures` did.

    Attributes:
        path: The table that was written.
        pictures: How many files it has a row for.
        unread: Paths that could not be read, with the reason.
        kept: How many of the pictures had been answered before this call.
        rules: By which the answers were read.
    """

    path: Path
    pictures: int
    unread: dict[str, str]
    kept: int
    rules: AnswerRules


@logs.stage("answering for pictures")
def predict_pictures(
    source: str | Path,
    pictures: Sequence[str | Path],
    out: str | Path,
    *,
    maps: str | Path | None = None,
    probabilities: bool = False,
    error: float = 0.05,
    coverage: float = 0.9,
    trust: Collection[str] = (),
    device: str = "auto",
) -> Answered:
    """Answer for picture files and write a table: path, class, confidence, set, below_threshold, problem.

    Pictures are read in blocks, so that any number of them fits into memory; a block that is done stays in
    `OUT.parts`, and the same call goes on after a kill.

    Args:
        source: The folder of a run, or an `.onnx` file of `export_onnx`, for which torch is not needed.
        pictures: Files, folders with all pictures below them, manifests (`.csv`, `.parquet` with a column
            path), or patterns such as "inbox/*.jpg". Each file is answered for once.
        out: Ends in .csv or .parquet.
        maps: A folder for a picture of each with its heat map; a run only.
        probabilities: Add a column for each class.
        error: Of `run_rules`; what an exported model has is its own.
        coverage: Of `run_rules`.
        trust: Modules that may be imported because a file of the run names a function in them.
        device: To run on.

    Raises:
        InputError: No picture, an ending that is not known, or a value that does not fit.
        NotFoundError: A file, a folder or a run that is not there.
        MissingExtraError: onnxruntime is not installed.
        WriteError: The table cannot be written.
    """
    target, model = Path(out), Path(source)
    if target.suffix not in (".csv", ".parquet"):
        raise InputError(f"{shown_name(target)} ends in {target.suffix!r}; answers are .csv or .parquet")
    files = find_pictures(pictures)
    exported = model.suffix == ".onnx"
    if exported and maps is not None:
        raise InputError("heat maps need the run's own model; give its folder in place of the .onnx file")
    if exported:
        rules, answer, mark = _onnx(model)
    else:
        rules, answer, mark = _run(existing_folder(model), error, coverage, trust, device)
    parts = target.with_name(f"{target.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    with hold(parts):
        kept = _plan(parts, files, {"model": mark, "rules": rules.to_json(), "columns": probabilities})
        with logs.stage("answering", total=len(files)) as stage:
            for number, block in enumerate(_blocks(files)):
                part = parts / f"{number:06d}.parquet"
                if not part.exists():
                    table = _answered(rules, answer, block, probabilities)
                    if maps is not None:
                        table["map"] = _maps(model, block, table, Path(maps), number * BLOCK, trust, device)
                    _write(table, part)
                stage.advance(len(block))
        unread = _join(parts, target)
    shutil.rmtree(parts, ignore_errors=True)
    return Answered(target, len(files), unread, kept, rules)


def find_pictures(given: Sequence[str | Path]) -> list[str]:
    """Return picture files by what was given, each once, folders and patterns in the order of their names.

    Raises:
        InputError: There is none, or a manifest has no column path.
        NotFoundError: A file or folder is not there.
    """
    found: dict[str, None] = {}
    for one in given:
        text = str(one)
        if Path(text).is_dir():
            below = sorted(
                str(path)
                for path in Path(text).rglob("*")
                if path.suffix.lower() in picture_suffixes()
                and not path.name.startswith(".")
                and path.is_file()
            )
            found |= dict.fromkeys(below)
        elif Path(text).suffix.lower() in (".csv", ".parquet"):
            found |= dict.fromkeys(_listed(Path(text)))
        elif Path(text).exists():
            found[text] = None
        elif glob.has_magic(text):
            found |= dict.fromkeys(sorted(filter(_is_file, glob.glob(text, recursive=True))))  # noqa: PTH207
        else:
            raise NotFoundError(
                f"{shown_name(text)} is not there; give pictures, folders, manifests or patterns"
            )
    if not found:
        raise InputError(
            f"no pictures in {', '.join(shown_name(str(one)) for one in given)}; nothing to answer"
        )
    return list(found)


def _is_file(path: str) -> bool:
    return Path(path).is_file()


def _listed(manifest: Path) -> list[str]:
    """The paths of a manifest, seen from its folder."""
    import pandas as pd

    if not manifest.exists():
        raise NotFoundError(f"{shown_name(manifest)} is not there")
    try:
        table = pd.read_csv(manifest, dtype=str) if manifest.suffix == ".csv" else pd.read_parquet(manifest)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DamagedFileError(f"{shown_name(manifest)} is no table ({reason})") from None
    if "path" not in table:
        raise InputError(
            f"{shown_name(manifest)} has no column path; it has {', '.join(map(str, table))[:120]}"
        )
    return [str(manifest.parent / path) for path in table["path"].dropna()]


def _blocks(files: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(files), BLOCK):
        yield files[start : start + BLOCK]


def _plan(parts: Path, files: list[str], what: dict[str, object]) -> int:
    """Keep what the blocks are of; return how many pictures were answered for before by the same plan."""
    digest = hashlib.sha256("\0".join(files).encode(errors="surrogateescape")).hexdigest()
    plan = json.dumps({"pictures": len(files), "sha256": digest, "block": BLOCK, **what}, sort_keys=True)
    place = parts / _PLAN
    if not place.exists() or place.read_text(encoding="utf-8") != plan:
        for old in parts.glob("*.parquet"):
            old.unlink()
        write_atomic(place, lambda file: file.write(plan.encode()))
        return 0
    done = [number for number, _ in enumerate(_blocks(files)) if (parts / f"{number:06d}.parquet").exists()]
    kept = sum(min(BLOCK, len(files) - number * BLOCK) for number in done)
    if kept:
        log.info("%d of %d pictures were answered for before; going on", kept, len(files))
    return kept


def _answered(rules: AnswerRules, answer: Answer, block: list[str], probabilities: bool) -> pd.DataFrame:
    """The rows of one block; a picture that cannot be read has its reason as `problem` and nothing else."""
    import pandas as pd

    tables = []
    for start in range(0, len(block), _BATCH):
        paths = block[start : start + _BATCH]
        read = read_hashed(paths, rules.resizing)
        good = [number for number, one in enumerate(read) if not isinstance(one, str)]
        problems = [one if isinstance(one, str) else "" for one in read]
        shown = [path.encode(errors="replace").decode() for path in paths]
        if good:
            images = np.stack([read[number][0] for number in good])  # (B, H, W, 3)  # pyright: ignore
            logits = answer(images)
        else:
            logits = np.zeros((0, len(rules.class_names)))
        table = answer_table(rules, logits, paths=[shown[k] for k in good], probabilities=probabilities)
        table = table.set_index(pd.Index(good)).reindex(range(len(paths)))
        table["path"] = shown
        table["problem"] = problems
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _write(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as partial:
        table.to_parquet(partial, index=False)


def _join(parts: Path, target: Path) -> dict[str, str]:
    """Write the table of all blocks, one block in memory at a time; return the unread pictures."""
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    unread: dict[str, str] = {}
    places = sorted(parts.glob("*.parquet"))
    schema = _schema(places)
    with atomic_path(target) as partial:
        if target.suffix == ".parquet":
            writer: pq.ParquetWriter | pacsv.CSVWriter = pq.ParquetWriter(partial, schema, compression="zstd")
        else:
            writer = pacsv.CSVWriter(partial, schema)
        with writer:
            for place in places:
                table = pq.read_table(place).select(schema.names).cast(schema)
                for path, problem in zip(
                    table["path"].to_pylist(), table["problem"].to_pylist(), strict=True
                ):
                    if problem:
                        unread[path] = problem
                writer.write_table(_harmless(table) if target.suffix == ".csv" else table)
    return unread


def _harmless(table: pa.Table) -> pa.Table:
    """The same with texts that a spreadsheet would run as formulas made plain."""
    import pyarrow as pa

    for number, field in enumerate(table.schema):
        if field.type == pa.string():
            cells = [None if text is None else harmless_cell(text) for text in table[field.name].to_pylist()]
            table = table.set_column(number, field, pa.array(cells, pa.string()))
    return table


def _schema(places: list[Path]) -> pa.Schema:
    """The columns of the answers; a block whose pictures were all unread does not know their types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pq.read_schema(places[0]).names
    types = {
        "path": pa.string(),
        "class": pa.string(),
        "set": pa.string(),
        "problem": pa.string(),
        "map": pa.string(),
    }
    types |= {"below_threshold": pa.bool_()}
    return pa.schema([(name, types.get(name, pa.float64())) for name in names])


def _run(
    folder: Path, error: float, coverage: float, trust: Collection[str], device: str
) -> tuple[AnswerRules, Answer, str]:
    """Rules, model and fingerprint of a run."""
    import torch

    from sightline.models import choose_device, load_model, to_float
    from sightline.runs.artifacts import WEIGHTS

    rules = run_rules(folder, error=error, coverage=coverage)
    model = load_model(folder, trust=trust)[0].to(choose_device(device)).eval()
    place = next(model.parameters()).device

    def answer(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(to_float(images).to(place)).float().cpu().numpy()

    return rules, answer, _digest(folder / WEIGHTS)


def _onnx(path: Path) -> tuple[AnswerRules, Answer, str]:
    """Rules, model and fingerprint of an exported file."""
    if not path.is_file():
        raise NotFoundError(f"{shown_name(path)} is not there; 'sightline export RUN --onnx FILE' writes it")
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError(
            'an .onnx file needs onnxruntime; install it with: pip install "sightline-vision[onnx]"'
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        said = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # the runtime has no base of its own errors
        reason = " ".join(str(error).split())[:120]
        raise DamagedFileError(f"{shown_name(path)} cannot be read as a model ({reason})") from None
    if "sightline" not in said:
        raise InputError(
            f"{shown_name(path)} does not say what its classes and pictures are; "
            "only what 'sightline export' wrote is answered with"
        )
    rules = AnswerRules.from_json(said["sightline"], of=shown_name(path))
    name = session.get_inputs()[0].name

    def answer(images: np.ndarray) -> np.ndarray:
        floats = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / 255  # (B, 3, H, W)
        return np.asarray(session.run(None, {name: floats})[0])

    return rules, answer, _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _maps(
    run: Path,
    block: list[str],
    table: pd.DataFrame,
    maps: Path,
    first: int,
    trust: Collection[str],
    device: str,
) -> list[str]:
    """Draw the heat maps of the pictures of a block that could be read; return the names of their files."""
    from sightline.runs.explain_files import explain_pictures

    maps.mkdir(parents=True, exist_ok=True)
    names = [""] * len(block)
    good = [number for number, problem in enumerate(table["problem"]) if not problem]
    with tempfile.TemporaryDirectory(dir=maps) as place:
        for start in range(0, len(good), _BATCH):
            some = good[start : start + _BATCH]
            paths = [Path(block[number]) for number in some]
            for number, row in zip(
                some, explain_pictures(run, paths, out=Path(place), trust=trust, device=device), strict=True
            ):
                names[number] = f"{first + number:06d}-{Path(row['heatmap']).name}"
                Path(row["heatmap"]).replace(maps / names[number])
    return names
