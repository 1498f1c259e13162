"""A run's model as a folder that a model hub shows: weights, configuration, a card filled by the audit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sightline import logs
from sightline.deploy.answers import AnswerRules, run_rules
from sightline.errors import InputError, NotFoundError
from sightline.files import read_json, shown_name, write_text
from sightline.report.formatting import percent, percent_range
from sightline.runs.artifacts import DATA_CARD, MODEL_CARD, WEIGHTS
from sightline.runs.run_folder import Run

_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "matthews", "loss", "brier")


@logs.stage("laying out a hub's folder")
def export_hub(run: Run, folder: str | Path, *, licence: str = "") -> Path:
    """Write `model.safetensors`, `model.json`, `config.json` and `README.md`, and return the folder.

    The card says what the audit of the run says: data, metrics with their intervals, known faults,
    calibration, limits. Nothing is uploaded. `sightline.models.load_model(folder)` opens the model again.

    Args:
        run: Finished and audited.
        folder: Not there yet, or empty.
        licence: What the card names as the licence of the weights; yours to decide.

    Raises:
        InputError: The folder has something in it.
        NotFoundError: The run has no model, or no audit.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{shown_name(target)} is not empty; name a folder that is not there yet")
    if not (run.folder / WEIGHTS).exists():
        raise NotFoundError(f"{run.folder} has no model; only a run that has one can be shared")
    rules = run_rules(run.folder)
    card = _card(run, rules, licence)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run.folder / WEIGHTS, target / WEIGHTS)
    shutil.copyfile(run.folder / MODEL_CARD, target / MODEL_CARD)
    model = read_json(run.folder / MODEL_CARD, otherwise="")
    config = {
        "library_name": "sightline",
        "architectures": [model["name"]],
        "id2label": {str(number): name for number, name in enumerate(rules.class_names)},
        "label2id": {name: number for number, name in enumerate(rules.class_names)},
        "image_size": list(rules.image_size),
        "sightline": json.loads(rules.to_json()),
    }
    write_text(target / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_text(target / "README.md", card)
    return target


def _card(run: Run, rules: AnswerRules, licence: str) -> str:
    audit, metrics = run.audit, run.metrics
    data = read_json(run.folder / DATA_CARD, otherwise=f"'sightline analyze {run.folder}' writes it")
    accuracy = audit.accuracy
    parts = [
        _front_matter(data, accuracy.value, licence),
        f"# {run.folder.name}",
        f"An image classifier of {len(rules.class_names)} classes, made with Sightline by the recipe "
        f"`{run.recipe.name}`. Of {accuracy.n} test images "
        f"{_with_interval(accuracy.value, accuracy.interval)} are right.",
        "## Data",
        _data(data),
        "## Metrics",
        _metrics(metrics),
        "## Known faults",
        "\n".join(f"- {one.text}" for one in audit.warnings) or "- The audit warns of nothing.",
        _weak(run),
        "## Confidence",
        _confidence(run, rules),
        "## Limits",
        "- Every number is of test images like those described above; pictures of another kind were not "
        "measured.\n- What the audit cannot know: faults that test and training share, and anything that is "
        "in none of these images.",
        "## Use",
        _use(rules),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(data: dict[str, Any], accuracy: float, licence: str) -> str:
    lines = ["---", *([f"license: {json.dumps(licence)}"] if licence else [])]
    lines += ["library_name: sightline", "pipeline_tag: image-classification", "tags:", "- sightline"]
    lines += [
        "model-index:",
        f"- name: {json.dumps(str(data.get('name', 'model')))}",
        "  results:",
        "  - task:",
    ]
    lines += [
        "      type: image-classification",
        "    dataset:",
        f"      name: {json.dumps(str(data['name']))}",
    ]
    lines += [f"      type: {json.dumps(str(data['name']))}", "    metrics:", "    - type: accuracy"]
    return "\n".join([*lines, f"      value: {accuracy:.4f}", "---"])


def _data(data: dict[str, Any]) -> str:
    rows = ["| class | training images | test images |", "| --- | --- | --- |"]
    counts = zip(data["class_names"], data["train_counts"], data["test_counts"], strict=True)
    rows += [f"| {_cell(name)} | {train} | {test} |" for name, train, test in counts]
    height, width = data["image_size"]
    about = f"`{data['name']}`: pictures of {height}x{width} pixels"
    rule = data.get("resize")
    return f"{about}{f', brought to it by `{rule}`' if rule else ''}.\n\n" + "\n".join(rows)


def _metrics(metrics: dict[str, Any]) -> str:
    scores = metrics.get("scores", {}).get("overall", {})
    rows = ["| metric | value | 95 % interval |", "| --- | --- | --- |"]
    for name in _METRICS:
        one = scores.get(name)
        if one and one.get("value") is not None:
            low, high = one.get("low"), one.get("high")
            interval = "-" if low is None or high is None else f"{low:.4f} to {high:.4f}"
            rows.append(f"| {name.replace('_', ' ')} | {one['value']:.4f} | {interval} |")
    return "\n".join(rows) if len(rows) > 2 else f"Accuracy {metrics['accuracy']:.4f}."


def _weak(run: Run) -> str:
    lines = [
        f"- {one.name}: {_with_interval(one.error, one.interval)} of {one.size} are wrong, of the others "
        f"{one.rest:.1%}."
        for one in run.audit.slices[:5]
    ]
    names = run.predictions.class_names
    lines += [
        f"- {names[pair.true]} is called {names[pair.predicted]} in "
        f"{_with_interval(pair.share, pair.interval)} of its test images."
        for pair in run.audit.confused_pairs[:5]
    ]
    return "\n".join(lines)


def _confidence(run: Run, rules: AnswerRules) -> str:
    calibration = run.audit.calibration
    lines = [
        f"- Expected calibration error {calibration.ece:.1%}; noise alone would show up to "
        f"{calibration.noise_high:.1%}."
    ]
    if calibration.temperature:
        lines.append(f"- Probabilities are `softmax(logits / {calibration.temperature:.4g})`.")
    if rules.threshold is not None:
        lines.append(
            f"- An uncalibrated confidence below {rules.threshold:.4g} is for a person to look at: "
            f"of the others at most {rules.wanted_error:.0%} are wrong, on images like these."
        )
    return "\n".join(lines)


def _use(rules: AnswerRules) -> str:
    height, width = rules.image_size
    return (
        "```python\n"
        "from sightline.models import load_model, to_float\n"
        "from sightline.data import read_image\n\n"
        'model, card = load_model(Path("."))\n'
        f'image = read_image("picture.jpg", size=({height}, {width}), resize="{rules.resize}", '
        f'interpolation="{rules.interpolation}")\n'
        'card["class_names"][model(to_float(image[None])).argmax()]\n'
        "```"
    )


def _with_interval(share: float, interval: tuple[float, float]) -> str:
    return f"{percent(share)} ({percent_range(*interval)})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
