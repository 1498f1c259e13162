"""The commands that work on runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli import options
from sightline.cli.app import app
from sightline.cli.options import PATH, all_changes, emit
from sightline.errors import SightlineError

if TYPE_CHECKING:
    from sightline.runs import Reporter, Run


@contextmanager
def _begun(
    recipe: str,
    given: Mapping[str, Any],
    *,
    changes: Sequence[str],
    device: str,
    out: Path | None,
    resume: Path | None,
    as_json: bool,
    quiet: bool,
) -> Iterator[tuple[Run, Reporter]]:
    """Yield a new or resumed run and its reporter; Ctrl-C ends with a line that says how to go on."""
    from sightline.cli.console import reporter
    from sightline.runs import load_run, start_run

    if resume is None:
        changed = all_changes(changes, given)
        begun = start_run(recipe or "shapes-quick", changes=changed, out=out, device=device)
    elif recipe or out or changes or any(value is not None for value in given.values()):
        raise click.UsageError("--resume goes on with the run's own recipe and folder; give it alone")
    else:
        begun = load_run(resume)
    try:
        with reporter(to_stderr=as_json, quiet=quiet) as log:
            yield begun, log
    except KeyboardInterrupt:
        raise SightlineError(
            f"stopped, and what was done is kept; go on with: sightline run --resume {begun.folder}"
        ) from None


def _headline(run: Run) -> dict[str, Any]:
    keys = ("accuracy", "loss", "images", "mistakes", "seconds")
    return {"run": str(run.folder), "report": str(run.report), **{key: run.metrics[key] for key in keys}}


@app.command()
@click.argument("recipe", default="")
@options.recipe
@options.folder
@options.as_json
@options.quiet
@options.debug
def run(recipe, changes, device, out, resume, as_json, quiet, **given) -> None:
    """Train, predict, rank mistakes, explain, report.

    RECIPE is a name ('sightline recipes' lists them) or a .toml file; without one, shapes-quick, which
    needs no download.
    """
    from sightline.runs import finish_run

    where = {"changes": changes, "device": device, "out": out, "resume": resume}
    with _begun(recipe, given, **where, as_json=as_json, quiet=quiet) as (begun, log):
        finish_run(begun, device=device, reporter=log)
    emit(_headline(begun), as_json=as_json, text=str(begun.report) if quiet else "")


@app.command()
@click.argument("recipe", default="")
@options.recipe
@options.folder
@options.as_json
@options.quiet
@options.debug
def train(recipe, changes, device, out, resume, as_json, quiet, **given) -> None:
    """Train only; 'analyze' and 'report' can follow."""
    from sightline.runs import train as train_run

    where = {"changes": changes, "device": device, "out": out, "resume": resume}
    with _begun(recipe, given, **where, as_json=as_json, quiet=quiet) as (begun, log):
        history = train_run(begun, begun.data(), device=device, reporter=log)
    emit({"run": str(begun.folder), **history.epochs[-1]}, as_json=as_json, text=str(begun.folder))


@app.command()
@click.argument("run", type=PATH)
@options.device
@options.as_json
@options.quiet
@options.debug
def analyze(run: Path, device: str, as_json: bool, quiet: bool) -> None:
    """Predict, rank and explain again with the weights of RUN."""
    from sightline.cli.console import reporter
    from sightline.runs import analyze as analyze_run
    from sightline.runs import load_run

    opened = load_run(run)
    with reporter(to_stderr=as_json, quiet=quiet) as log:
        analyze_run(opened, opened.data(), device=device, reporter=log)
    emit(_headline(opened), as_json=as_json)


@app.command()
@click.argument("run", type=PATH)
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("--target", help="Class to explain  [default: the predicted one]")
@click.option("--layer", help="Layer to explain at  [default: the run's main one]")
@click.option("--method", help="Method, or auto for the most faithful  [default: the run's]")
@click.option("--out", type=PATH, help="Folder for the heat maps  [default: RUN/explained]")
@options.device
@options.as_json
@options.debug
def explain(run, images, target, layer, method, out, device, as_json) -> None:
    """Classify picture files with RUN and draw where the model looked."""
    from sightline.cli.console import print_table
    from sightline.runs import explain_pictures

    rows = explain_pictures(run, images, out=out, target=target, layer=layer, method=method, device=device)
    emit(rows, as_json=as_json)
    if not as_json:
        print_table(("image", "predicted", "top 5", "heat map"), [_picture_cells(row) for row in rows])


def _picture_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    top = ", ".join(f"{entry['class']} {100 * entry['probability']:.1f} %" for entry in row["top"])
    note = "" if row["status"] == "ok" else f" ({row['status']})"
    return row["image"], row["predicted"], top, row["heatmap"] + note


@app.command()
@click.argument("run", type=PATH)
@options.as_json
@options.debug
def report(run: Path, as_json: bool) -> None:
    """Write the report of RUN again from its saved data."""
    from sightline.report import write_report
    from sightline.runs import existing_folder

    path = write_report(existing_folder(run))
    emit({"report": str(path)}, as_json=as_json, text=str(path))


@app.command("find-lr")
@click.argument("recipe")
@options.recipe
@click.option("--out", type=PATH, help="Folder for table and plot  [default: runs/find-lr-RECIPE-N]")
@options.as_json
@options.debug
def find_lr(recipe, changes, device, out, as_json, **given) -> None:
    """Run the learning-rate range test of RECIPE and suggest a maximum."""
    from sightline.report import write_range_test
    from sightline.runs import describe_range_test, new_folder, range_test, recipe_data
    from sightline.training import load_recipe

    checked = load_recipe(recipe, all_changes(changes, given))
    found = range_test(checked, recipe_data(checked), device=device)
    folder = new_folder(f"find-lr-{checked.name}", out)
    found.save(folder)
    figure = write_range_test(folder)
    text = f"{describe_range_test(found)}\n{figure}"
    emit({"suggestions": found.suggestions, "folder": str(folder)}, as_json=as_json, text=text)
