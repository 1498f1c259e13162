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
    from sightline.models import keep_freed_memory
    from sightline.models.processes import is_lost, leader_does
    from sightline.runs import load_run, start_run

    keep_freed_memory()
    if resume is None:
        changed = all_changes(changes, given)
        begun = start_run(recipe or "shapes-quick", changes=changed, out=out, device=device)
    elif recipe or out or changes or any(value is not None for value in given.values()):
        raise click.UsageError("--resume goes on with the run's own recipe and folder; give it alone")
    else:
        begun = leader_does(lambda: load_run(resume))
    try:
        with reporter(to_stderr=as_json, quiet=quiet) as log:
            yield begun, log
    except KeyboardInterrupt:
        raise SightlineError(
            f"stopped, and what was done is kept; go on with: sightline run --resume {begun.folder}"
        ) from None
    except Exception as error:
        if is_lost(error):
            raise SightlineError(
                "another process of this job ended, and what was done is kept; go on, with as many processes "
                f"as you like, with: sightline run --resume {begun.folder}"
            ) from error
        raise


def _emit_headline(run: Run, *, as_json: bool, text: str = "") -> None:
    from sightline.models.processes import leads

    if not leads():  # the run's folder may be on another machine
        return
    keys = ("accuracy", "loss", "images", "mistakes", "seconds")
    headline = {"run": str(run.folder), "report": str(run.report), **{key: run.metrics[key] for key in keys}}
    emit(headline, as_json=as_json, text=text)


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
    _emit_headline(begun, as_json=as_json, text=str(begun.report) if quiet else "")


@app.command()
@click.argument("recipe", default="")
@options.recipe
@options.folder
@options.as_json
@options.quiet
@options.debug
def train(recipe, changes, device, out, resume, as_json, quiet, **given) -> None:
    """Train only; 'analyze' and 'report' can follow."""
    from sightline.models.processes import leads
    from sightline.runs import train as train_run

    where = {"changes": changes, "device": device, "out": out, "resume": resume}
    with _begun(recipe, given, **where, as_json=as_json, quiet=quiet) as (begun, log):
        history = train_run(begun, begun.data(), device=device, reporter=log)
    if leads():
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
    from sightline.models.processes import leader_does
    from sightline.runs import analyze as analyze_run
    from sightline.runs import load_run

    opened = leader_does(lambda: load_run(run))
    with reporter(to_stderr=as_json, quiet=quiet) as log:
        analyze_run(opened, opened.data(), device=device, reporter=log)
    _emit_headline(opened, as_json=as_json)


@app.command()
@click.argument("run", type=PATH)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    help="Also judge training labels by this many models that have not seen them.",
)
@options.device
@options.as_json
@options.quiet
@options.debug
def audit(run: Path, folds: int | None, device: str, as_json: bool, quiet: bool) -> None:
    """Say which mistakes of RUN are label errors, leaks, shortcuts or real, and what to fix first."""
    from sightline.cli.console import print_table, reporter
    from sightline.report import write_report
    from sightline.runs import audit as audit_run
    from sightline.runs import existing_folder

    folder = existing_folder(run)
    with reporter(to_stderr=as_json, quiet=quiet) as log:
        found = audit_run(folder, folds=folds or 0, device=device, reporter=log)
    page = write_report(folder)
    emit({**found.facts, "report": str(page)}, as_json=as_json)
    if not as_json:
        causes = found.facts["budget"]["causes"]
        rows = [(row["cause"], str(row["count"]), f"{100 * row['share']:.1f} %") for row in causes]
        print_table(("cause of the mistakes", "count", "share"), rows)
        fixes = [(fix["title"], _gain(fix)) for fix in found.facts["fixes"]]
        print_table(("what to fix first", "expected gain"), fixes)
        click.echo(str(page))


def _gain(fix: Mapping[str, Any]) -> str:
    gain = fix["gain"]
    if gain is None:
        return "known after training again"
    return f"{gain['value']:+.2f} ({gain['low']:+.2f} to {gain['high']:+.2f}) {gain['unit']}"


@app.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option("--out", type=PATH, help="The page  [default: B/compare-A.html]")
@options.as_json
@options.debug
def compare(a: Path, b: Path, out: Path | None, as_json: bool) -> None:
    """Say what run B gained over run A: images fixed, broken and churned, and a page that shows them."""
    from sightline.cli.console import print_table
    from sightline.runs import compare_runs, existing_folder

    first, second = existing_folder(a), existing_folder(b)
    page = out or second / f"compare-{first.name}.html"
    found = compare_runs(first, second, page)
    emit({**found.to_dict(), "page": str(page)}, as_json=as_json)
    if as_json:
        return
    low, high = found.interval
    rows = [
        ("accuracy", f"{100 * found.accuracy_a:.2f} % to {100 * found.accuracy_b:.2f} %"),
        ("difference", f"{100 * found.difference:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})"),
        ("McNemar's p", f"{found.p:.3g}"),
        *((name, str(len(getattr(found, name)))) for name in ("fixed", "broken", "churned")),
    ]
    print_table(("", f"{first.name} to {second.name}"), rows)
    click.echo(str(page))


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
@click.option("--sweeps", type=click.IntRange(min=1), default=3, show_default=True, help="One seed each.")
@click.option("--trials/--no-trials", default=True, help="Short trainings after each sweep  [default: yes]")
@click.option(
    "--apply", is_flag=True, help="Write the rate into RECIPE, or a shipped one into a new NAME.toml."
)
@click.option(
    "--out", type=PATH, help="Folder for table, plot and new recipe  [default: runs/find-lr-RECIPE-N, here]"
)
@options.as_json
@options.quiet
@options.debug
def find_lr(recipe, changes, device, sweeps, trials, apply, out, as_json, quiet, **given) -> None:
    """Run the learning-rate range test of RECIPE, then short trainings, and suggest a maximum."""
    from sightline.cli.console import reporter
    from sightline.models import processes
    from sightline.report import write_range_test
    from sightline.runs import (
        apply_rate,
        describe_range_test,
        new_folder,
        range_test,
        recipe_data,
        recipe_file,
    )
    from sightline.training import load_recipe

    if apply and (changes or given["data"] or given["epochs"]):
        raise click.UsageError("--apply writes the rate alone; write the other changes into the recipe first")
    checked = load_recipe(recipe, all_changes(changes, given))
    # Before the sweeps, which take their time.
    target = processes.leader_does(lambda: recipe_file(recipe, out)) if apply else None
    data = processes.machine_first(lambda: recipe_data(checked))
    how = {"sweeps": sweeps, "trials": trials, "device": device}
    with reporter(to_stderr=as_json, quiet=quiet) as log:
        found = range_test(checked, data, **how, reporter=log)
    if not processes.leads():
        return
    folder = new_folder(f"find-lr-{checked.name}", out)
    found.save(folder)
    lines = [describe_range_test(found), str(write_range_test(folder))]
    result = {name: getattr(found, name) for name in ("suggestion", "recommended", "suggestions", "ranges")}
    if target is not None:
        lines.append(apply_rate(*target, found.suggestion))
        result["recipe"] = str(target[0])
    emit(result | {"folder": str(folder)}, as_json=as_json, text="\n".join(lines))
