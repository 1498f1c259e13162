"""The commands that judge finished runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli import options
from sightline.cli.app import app
from sightline.cli.options import PATH, emit, emit_headline
from sightline.files import hold

if TYPE_CHECKING:
    from sightline.audit.result import Gain
    from sightline.predictions import Change


@app.command()
@click.argument("run", type=PATH)
@options.trust
@options.device
@options.as_json
@options.quiet
@options.debug
def analyze(run: Path, trust: tuple[str, ...], device: str, as_json: bool, quiet: bool) -> None:
    """Predict, rank and explain again with the weights of RUN."""
    from sightline.cli.console import log_shown
    from sightline.distributed import leader_does
    from sightline.runs import analyze as analyze_run
    from sightline.runs import load_run
    from sightline.runs.run_folder import held_by_leader

    opened = leader_does(lambda: load_run(run, trust=trust))
    with held_by_leader(opened.folder), log_shown(to_stderr=as_json, quiet=quiet):
        analyze_run(opened, opened.data(), device=device)
    emit_headline(opened, as_json=as_json)


@app.command()
@click.argument("run", type=PATH)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    help="Also judge training labels by a probe on frozen features, in so many folds.",
)
@click.option(
    "--folds-recipe",
    metavar="NAME_OR_FILE",
    help="Judge them by a model per fold, trained by this recipe, instead.",
)
@click.option("--backbone", metavar="NAME", help="Network of those features  [default: efficientnet_lite0]")
@click.option(
    "--calibrate",
    is_flag=True,
    help="Ask a second witness, and measure with planted wrong labels how true each list is on this data.",
)
@click.option(
    "--other",
    "others",
    type=PATH,
    multiple=True,
    metavar="RUN",
    help="Find ambiguous images by this run's answers too, of another seed say; may be given several times.",
)
@options.trust
@options.device
@options.as_json
@options.quiet
@options.debug
def audit(
    run: Path,
    folds: int | None,
    folds_recipe: str | None,
    backbone: str | None,
    calibrate: bool,
    others: tuple[Path, ...],
    trust: tuple[str, ...],
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say why RUN errs, and what to fix first.

    Which mistakes are label errors, leaks, shortcuts or real; the page in RUN shows it with its images.
    """
    from sightline.cli.console import log_shown, print_table
    from sightline.runs import audit_run, load_run, report_run

    opened = load_run(run, trust=trust)
    how: dict[str, Any] = {"folds": folds or 0, "folds_recipe": folds_recipe, "others": others}
    how["calibrate"] = calibrate
    how |= {"backbone": backbone} if backbone else {}
    with hold(opened.folder), log_shown(to_stderr=as_json, quiet=quiet):
        found = audit_run(opened, **how, device=device)
        page = report_run(opened)
    emit({**found.result.to_dict(), "report": str(page)}, as_json=as_json)
    if not as_json:
        causes = found.error_budget.causes
        rows = [(one.cause.value, str(one.count), f"{100 * one.share:.1f} %") for one in causes]
        print_table(("cause of the mistakes", "count", "share"), rows)
        fixes = [(fix.title, _gain(fix.gain)) for fix in found.fixes]
        print_table(("what to fix first", "expected gain"), fixes)
        click.echo(str(page))


def _gain(gain: Gain | None) -> str:
    if gain is None:
        return "known after training again"
    return f"{gain.value:+.2f} points ({gain.low:+.2f} to {gain.high:+.2f}) of {gain.unit}"


@app.command("inspect")
@click.argument("data")
@click.option("--model", help="Network, as your training had it: module:function, timm/NAME, a name of ours.")
@click.option("--weights", type=PATH, help="Its weights, with the head: safetensors, or a state dict.")
@click.option(
    "--predictions", type=PATH, help="In place of a model: Parquet or CSV with a column per class, and path."
)
@click.option("--features", type=PATH, help="Features by image: .npy, .npz or Parquet.")
@click.option("--out-of-fold", type=PATH, help="Predictions of training images by models without them.")
@click.option("--backbone", help="Network of features where none are given  [default: efficientnet_lite0]")
@click.option("--classes", help="Names in the order of the model's outputs: a,b,c or a file of lines.")
@click.option("--mean", help="Per channel, that the model's training normalised by: 0.485,0.456,0.406.")
@click.option("--std", help="The same of the standard deviation.")
@click.option("--fixes", type=PATH, help="Decisions from a report: relabel and drop images by them.")
@click.option(
    "--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a value of the recipe."
)
@click.option("--out", type=PATH, help="The run's own folder  [default: runs/inspect-N]")
@options.trust
@options.device
@options.as_json
@options.quiet
@options.debug
def inspect(data, predictions, classes, mean, std, backbone, as_json, quiet, **given) -> None:
    """Audit what was trained elsewhere: a model on DATA, or its predictions alone.

    DATA is a folder, a manifest (.csv, .parquet), .tar files, hf/NAME, an .npz file or a name. The run that
    it makes is like any other: audit, report, explain, compare and decisions work on it.
    """
    from sightline.cli.console import log_shown
    from sightline.runs.existing_model import inspect as inspect_data

    model = given.pop("model")
    how = {key: _three(key, text) for key, text in (("mean", mean), ("std", std)) if text}
    how |= {"backbone": backbone} if backbone is not None else {}
    with log_shown(to_stderr=as_json, quiet=quiet):
        made = inspect_data(
            data, model, probabilities=predictions, class_names=_names(classes), **how, **given, verbose=False
        )
    emit_headline(made, as_json=as_json, text=str(made.report) if quiet else "")


def _names(classes: str | None) -> list[str]:
    """Class names of an option: a file of lines, or names with commas between them."""
    if not classes:
        return []
    if Path(classes).is_file():
        return [
            line.strip() for line in Path(classes).read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    return [name.strip() for name in classes.split(",")]


def _three(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.UsageError(f"--{name} {text!r} is not three numbers with commas between them") from None


@app.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option("--out", type=PATH, help="The page  [default: B/compare-A.html]")
@options.as_json
@options.debug
def compare(a: Path, b: Path, out: Path | None, as_json: bool) -> None:
    """Say what run B gained over run A.

    Images fixed, broken and churned, whether chance explains it, and a page that shows them.
    """
    from sightline.cli.console import log_shown, print_table
    from sightline.runs import compare_runs, existing_folder

    first, second = existing_folder(a), existing_folder(b)
    page = out or second / f"compare-{first.name}.html"
    with log_shown(to_stderr=True, quiet=False):
        found = compare_runs(first, second, page)
    emit({**found.to_dict(), "page": str(page)}, as_json=as_json)
    if as_json:
        return
    low, high = found.interval
    rows = [
        ("accuracy", f"{100 * found.accuracy_a:.2f} % to {100 * found.accuracy_b:.2f} %"),
        ("difference", f"{100 * found.difference:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})"),
        ("McNemar's p", f"{found.p:.3g}"),
        *(
            (name.replace("_", " "), _change(found.metrics[name]))
            for name in ("balanced_accuracy", "macro_f1")
        ),
        *((name, str(len(getattr(found, name)))) for name in ("fixed", "broken", "churned")),
    ]
    print_table(("", f"{first.name} to {second.name}"), rows)
    click.echo(str(page))


def _change(change: Change) -> str:
    if change.a is None or change.b is None:
        return "not defined"
    return f"{change.a:.4f} to {change.b:.4f} ({change.low:+.4f} to {change.high:+.4f})"


@app.command()
@click.argument("run", type=PATH)
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("--target", help="Class to explain  [default: the predicted one]")
@click.option("--layer", help="Layer to explain at  [default: the run's main one]")
@click.option(
    "--method",
    help="A name, package.module:function, or auto for the most faithful  [default: the run's]",
)
@click.option("--out", type=PATH, help="Folder for the heat maps  [default: RUN/explained]")
@options.trust
@options.device
@options.as_json
@options.debug
def explain(run, images, target, layer, method, out, trust, device, as_json) -> None:
    """Classify picture files with RUN and draw where the model looked."""
    from sightline.cli.console import log_shown, print_table
    from sightline.runs import explain_pictures

    how = {"target": target, "layer": layer, "method": method, "trust": trust, "device": device}
    with log_shown(to_stderr=True, quiet=False):
        rows = explain_pictures(run, images, out=out, **how)
    emit(rows, as_json=as_json)
    if not as_json:
        print_table(("image", "predicted", "top 5", "heat map"), [_picture_cells(row) for row in rows])
        reason = f" ({rows[0]['layer_reason']})" if rows[0]["layer_reason"] else ""
        click.echo(f"{rows[0]['method']} at layer {rows[0]['layer']}{reason}")


def _picture_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    top = ", ".join(f"{entry['class']} {100 * entry['probability']:.1f} %" for entry in row["top"])
    note = "" if row["status"] == "ok" else f" ({row['status']})"
    return row["image"], row["predicted"], top, row["heatmap"] + note


@app.command()
@click.argument("run", type=PATH)
@click.option(
    "--section",
    "sections",
    multiple=True,
    metavar="NAME",
    help="Add a section by a function of yours, as package.module:function; may be given several times.",
)
@click.option("--out", type=PATH, help="Write the page there instead of RUN/report.html.")
@click.option(
    "--images",
    type=click.IntRange(min=1),
    help="Show at most this many images of each split: mistakes first, then a sample of the rest.",
)
@options.trust
@options.as_json
@options.debug
def report(
    run: Path,
    sections: tuple[str, ...],
    out: Path | None,
    images: int | None,
    trust: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write the report of RUN again from its saved data."""
    from sightline.cli.console import log_shown
    from sightline.runs import load_run, report_run

    with log_shown(to_stderr=True, quiet=False):
        path = report_run(load_run(run, trust=trust), out, sections=sections, images=images)
    emit({"report": str(path)}, as_json=as_json, text=str(path))
