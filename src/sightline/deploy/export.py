"""A run's model in a file that other programs run, checked against the run's own before it is kept."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sightline import logs
from sightline.data import Split
from sightline.deploy.answers import AnswerRules, run_rules
from sightline.errors import InputError, MissingExtraError, SightlineError
from sightline.files import atomic_path, shown_name, write_text
from sightline.models import to_float
from sightline.runs.run_folder import Run

log = logging.getLogger(__name__)

CHECKED = 256  # test images
TOLERANCE = 1e-3
_BATCH = 32
_CALIBRATION = 256  # training images that the ranges of int8 are read off


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: The model.
        card: Markdown beside it: what it is, what goes in, what comes out.
        rules: What travels with it.
        difference: Largest difference of a logit from the run's own model in float32.
        images: How many test images that is of.
        accuracy: Of the exported model on the test images that int8 was measured on; None otherwise.
        accuracy_before: Of the run's model on the same.
        measured: How many images these two are of.
    """

    path: Path
    card: Path
    rules: AnswerRules
    difference: float
    images: int
    accuracy: float | None = None
    accuracy_before: float | None = None
    measured: int = 0


@logs.stage("exporting")
def export_onnx(
    run: Run, path: str | Path, *, int8: bool = False, error: float = 0.05, coverage: float = 0.9
) -> Exported:
    """Write the model of a run as ONNX, with everything that its answers need in the file's metadata.

    The input `images` is float32 (B, 3, H, W) in [0, 1], any B; normalising is part of the model. The output
    is `logits` (B, C). `AnswerRules` stand as JSON under the key "sightline" of the metadata.

    Args:
        run: Finished; its data is loaded for the check.
        path: Ends in .onnx.
        int8: Weights and activations in 8 bits, their ranges read off 256 training images; the accuracy that
            it costs is measured on the test split.
        error: Of `run_rules`.
        coverage: Of `run_rules`.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        InputError: The path has another ending, the model cannot be exported, or its logits differ from the
            run's own by more than 1e-3; no file is left.
    """
    target = _target(path, ".onnx")
    onnx, runtime = _onnx_packages()
    model, rules = run.model().float().eval(), run_rules(run.folder, error=error, coverage=coverage)
    data = run.data()
    images, own = _own_logits(model, data.test.take(_spread(len(data.test), CHECKED)))
    with atomic_path(target) as partial:
        _trace_onnx(model, rules, partial)
        difference = _difference(_onnx_logits(runtime, partial, images), own, target)
        result: dict[str, Any] = {}
        if int8:
            _quantise(partial, data.train if len(data.train) else data.test)
            result = _cost(model, runtime, partial, data.test)
        described = onnx.load(partial)
        entry = described.metadata_props.add()
        entry.key, entry.value = "sightline", rules.to_json()
        onnx.save(described, partial)
    exported = Exported(target, target.with_suffix(".md"), rules, difference, len(images), **result)
    write_text(exported.card, _card(run, exported, "onnxruntime"))
    return exported


@logs.stage("exporting")
def export_torch(run: Run, path: str | Path, *, error: float = 0.05, coverage: float = 0.9) -> Exported:
    """Write the model of a run as a program of `torch.export`, read by `torch.export.load`.

    Input, output, check and errors as of `export_onnx`; the rules stand in the file `sightline.json` of the
    archive (`extra_files`).

    Args:
        run: Finished.
        path: Ends in .pt2.
        error: Of `run_rules`.
        coverage: Of `run_rules`.
    """
    target = _target(path, ".pt2")
    model, rules = run.model().float().eval(), run_rules(run.folder, error=error, coverage=coverage)
    data = run.data()
    images, own = _own_logits(model, data.test.take(_spread(len(data.test), CHECKED)))
    program = _exported(model, rules)
    with torch.inference_mode():
        found = [program.module()(batch) for batch in to_float(images).split(_BATCH)]
    difference = _difference(torch.cat(found).numpy(), own, target)
    with atomic_path(target) as partial, partial.open("wb") as file:
        torch.export.save(program, file, extra_files={"sightline.json": rules.to_json()})
    exported = Exported(target, target.with_suffix(".md"), rules, difference, len(images))
    write_text(exported.card, _card(run, exported, "torch.export.load"))
    return exported


def _target(path: str | Path, ending: str) -> Path:
    target = Path(path)
    if target.suffix != ending:
        raise InputError(f"{shown_name(target)} ends in {target.suffix!r}; this export is a {ending} file")
    if not target.parent.is_dir():
        raise InputError(f"the folder {shown_name(target.parent)} is not there; make it, or name another")
    return target


def _onnx_packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # what torch writes ONNX by
    except ImportError as error:
        raise MissingExtraError(
            f'{error.name} is not installed here; install it with: pip install "sightline-vision[onnx]"'
        ) from None
    return onnx, onnxruntime


def _spread(count: int, wanted: int) -> np.ndarray:
    """Up to `wanted` rows, evenly over all."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64))


def _own_logits(model: nn.Module, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, H, W, 3), and the model's logits of them in float32, (N, C)."""
    images = np.asarray(split.images[np.arange(len(split))])
    with torch.inference_mode():
        logits = torch.cat([model(batch) for batch in to_float(images).split(_BATCH)])
    return images, logits.numpy()


def _exported(model: nn.Module, rules: AnswerRules) -> torch.export.ExportedProgram:
    height, width = rules.image_size
    example = torch.rand(2, 3, height, width)
    batch = torch.export.Dim("batch")
    try:
        with _quiet():
            return torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    except SightlineError:
        raise
    except Exception as error:  # whatever the tracer meets
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"the model cannot be exported ({type(error).__name__}: {reason})") from error


def _trace_onnx(model: nn.Module, rules: AnswerRules, path: Path) -> None:
    program = _exported(model, rules)
    try:
        with _quiet():
            torch.onnx.export(
                program, f=str(path), input_names=["images"], output_names=["logits"],
                dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"the model cannot be written as ONNX ({type(error).__name__}: {reason})") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that the tracer gives of its own workings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the quantiser speaks through the root logger
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _onnx_logits(runtime: Any, path: Path, images: np.ndarray) -> np.ndarray:
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    floats = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / 255
    return np.concatenate(
        [session.run(None, {"images": floats[k : k + _BATCH]})[0] for k in range(0, len(floats), _BATCH)]
    )


def _difference(found: np.ndarray, own: np.ndarray, target: Path) -> float:
    difference = float(np.abs(found - own).max()) if found.shape == own.shape else float("inf")
    if not difference <= TOLERANCE:
        raise InputError(
            f"the exported model differs from the run's own by {difference:.2g} in a logit, more than "
            f"{TOLERANCE:g}, on {len(own)} test images; {shown_name(target)} is not kept"
        )
    log.info("largest difference of a logit on %d test images: %.2g", len(own), difference)
    return difference


def _quantise(path: Path, split: Split) -> None:
    """Turn the model at `path` into one of 8-bit integers, in place."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    rows = _spread(len(split), _CALIBRATION)
    images = np.asarray(split.images[rows]).transpose(0, 3, 1, 2).astype(np.float32) / 255

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{"images": images[k : k + _BATCH]} for k in range(0, len(images), _BATCH)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    smaller = path.with_name(f"{path.name}.int8")
    try:
        with _quiet():
            quantize_static(
                str(path), str(smaller), Images(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            )  # fmt: skip
        smaller.replace(path)
    finally:
        smaller.unlink(missing_ok=True)


def _cost(model: nn.Module, runtime: Any, path: Path, split: Split) -> dict[str, Any]:
    """The accuracy before and after, on up to 2,000 test images."""
    part = split.take(_spread(len(split), 2000))
    images, own = _own_logits(model, part)
    found = _onnx_logits(runtime, path, images)
    before, after = ((one.argmax(1) == part.labels).mean() for one in (own, found))
    log.info("int8: accuracy %.2f %% becomes %.2f %% on %d test images", 100 * before, 100 * after, len(part))
    return {"accuracy": float(after), "accuracy_before": float(before), "measured": len(part)}


def _card(run: Run, made: Exported, reader: str) -> str:
    rules, (height, width) = made.rules, made.rules.image_size
    accuracy = run.metrics["accuracy"]
    lines = [
        f"# {made.path.name}",
        "",
        f"Made from the run `{run.folder.name}` (recipe `{run.recipe.name}`); test accuracy {accuracy:.2%}.",
        "",
        f"- In: `images`, float32 (batch, 3, {height}, {width}), RGB in [0, 1]; "
        "normalising them is part of the model.",
        f"- A picture of another size: `{rules.resize}` with {rules.interpolation} scaling.",
        f"- Out: `logits` (batch, {len(rules.class_names)}), the classes in this order: "
        f"{', '.join(rules.class_names)}.",
        f"- Probabilities: softmax(logits / {rules.temperature:.4g}).",
        f"- Read by `{reader}`, or `sightline predict {made.path.name} PICTURES --out answers.csv`."
        if made.path.suffix == ".onnx"
        else f"- Read by `{reader}`.",
        f"- Checked against the run's own model on {made.images} test images: largest difference of a logit "
        f"{made.difference:.2g}" + (" (before int8)." if made.accuracy is not None else "."),
    ]
    if made.accuracy is not None and made.accuracy_before is not None:
        lines.append(
            f"- int8: accuracy {made.accuracy_before:.2%} becomes {made.accuracy:.2%} "
            f"on {made.measured} test images."
        )
    if rules.threshold is not None:
        lines.append(
            f"- Answers with an uncalibrated confidence below {rules.threshold:.4g} are for a person: of the "
            f"others at most {rules.wanted_error:.0%} are wrong, on images like the {rules.images} tested."
        )
    if rules.set_threshold is not None:
        lines.append(
            f"- Classes with 1 - p up to {rules.set_threshold:.4g} make a set that holds the true one in "
            f"{rules.coverage:.0%} of images like these."
        )
    return "\n".join(lines) + "\n"
