"""The commands that train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli import options
from sightline.cli.app import app
from sightline.cli.options import PATH, all_changes, emit, emit_headline
from sightline.errors import SightlineError, WriteError

if TYPE_CHECKING:
    from sightline.runs import Run


@contextmanager
def _begun(
    recipe: str,
    given: Mapping[str, Any],
    *,
    changes: Sequence[str],
    trust: Sequence[str],
    device: str,
    out: Path | None,
    resume: Path | None,
    as_json: bool,
    quiet: bool,
) -> Iterator[Run]:
    """Yield a new or resumed run while its log is shown; Ctrl-C ends with a line that says how to go on."""
    from sightline.cli.console import log_shown
    from sightline.distributed import is_lost, leader_does
    from sightline.models import keep_freed_memory
    from sightline.runs import load_run, start_run

    if resume and (recipe or out or changes or any(value is not None for value in given.values())):
        raise click.UsageError("--resume goes on with the run's own recipe and folder; give it alone")
    keep_freed_memory()
    with log_shown(to_stderr=as_json, quiet=quiet):
        if resume is None:
            changed = all_changes(changes, given)
            begun = start_run(recipe or "shapes-quick", changes=changed, trust=trust, out=out, device=device)
        else:
            begun = leader_does(lambda: load_run(resume, trust=trust))
    try:
        with log_shown(to_stderr=as_json, quiet=quiet):
            yield begun
    except KeyboardInterrupt:
        raise SightlineError(f"{_stopped(begun)}: sightline run --resume {begun.folder}") from None
    except WriteError as error:
        raise WriteError(f"{error}, then go on with: sightline run --resume {begun.folder}") from error
    except Exception as error:
        if is_lost(error):
            raise SightlineError(
                "another process of this job ended, and what was done is kept; go on, with as many processes "
                f"as you like, with: sightline run --resume {begun.folder}"
            ) from error
        raise


def _stopped(begun: Run) -> str:
    from sightline.distributed import leads
    from sightline.runs.artifacts import CHECKPOINT, WEIGHTS

    kept = [begun.folder / name for name in (CHECKPOINT, WEIGHTS)]
    if leads() and not any(path.exists() for path in kept):
        return "stopped before the first checkpoint, so the training is lost; begin it again with"
    return "stopped, and what was done is kept; go on with"


@app.command()
@click.argument("recipe", default="")
@options.recipe
@options.folder
@options.as_json
@options.quiet
@options.debug
def run(recipe, changes, trust, device, out, resume, as_json, quiet, **given) -> None:
    """Train, predict, rank mistakes, explain, report.

    RECIPE is a name ('sightline recipes' lists them) or a .toml file; without one, shapes-quick, which
    needs no download.
    """
    from sightline.runs import finish_run

    where = {"changes": changes, "trust": trust, "device": device, "out": out, "resume": resume}
    with _begun(recipe, given, **where, as_json=as_json, quiet=quiet) as begun:
        finish_run(begun, device=device)
    emit_headline(begun, as_json=as_json, text=str(begun.report) if quiet else "")


@app.command()
@click.argument("recipe", default="")
@options.recipe
@options.folder
@options.as_json
@options.quiet
@options.debug
def train(recipe, changes, trust, device, out, resume, as_json, quiet, **given) -> None:
    """Train only; 'analyze' and 'report' can follow."""
    from sightline.distributed import leads
    from sightline.runs import train as train_run

    where = {"changes": changes, "trust": trust, "device": device, "out": out, "resume": resume}
    with _begun(recipe, given, **where, as_json=as_json, quiet=quiet) as begun:
        history = train_run(begun, begun.data(), device=device)
    if leads():
        emit({"run": str(begun.folder), **history.epochs[-1]}, as_json=as_json, text=str(begun.folder))


@app.command("find-lr")
@click.argument("recipe")
@options.recipe
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    help="Steps of the whole search  [default: 5 % of the training's, at most 150]",
)
@click.option("--all", "every", is_flag=True, help="Show what the four classic rules say, too.")
@click.option("--apply", is_flag=True, help="Write it into RECIPE, or a shipped one into a new NAME.toml.")
@click.option(
    "--out", type=PATH, help="Folder for table, plot and new recipe  [default: runs/find-lr-RECIPE-N, here]"
)
@options.as_json
@options.quiet
@options.debug
def find_lr(recipe, changes, trust, device, steps, every, apply, out, as_json, quiet, **given) -> None:
    """Suggest a learning rate for RECIPE.

    By a range test (Smith 2015) that costs at most 5 % of the training. Where that is too short for a test,
    it is the default of network and optimizer.
    """
    from sightline import distributed
    from sightline.cli.console import log_shown
    from sightline.report import write_range_test
    from sightline.runs import apply_lr, describe_range_test, new_folder, range_test, recipe_data, recipe_file
    from sightline.runs.find_lr import describe_rules
    from sightline.runs.run_folder import as_backbone_wants
    from sightline.training import load_recipe

    if apply and (changes or given["data"] or given["epochs"]):
        raise click.UsageError(
            "--apply writes the learning rate alone; write the other changes into the recipe first"
        )
    checked = as_backbone_wants(
        load_recipe(recipe, all_changes(changes, given), trust=trust).with_present_engine()
    )
    # Before the sweeps, which take their time.
    target = distributed.leader_does(lambda: recipe_file(recipe, out)) if apply else None
    with log_shown(to_stderr=as_json, quiet=quiet):
        data = distributed.machine_first(lambda: recipe_data(checked))
        # The folder before the sweeps too: one that cannot be written is noticed now.
        with new_folder(f"find-lr-{checked.name}", out) as folder:
            found = range_test(checked, data, steps=steps, device=device)
            found.save(folder, rules=every)
            picture = [str(write_range_test(folder))] if len(found.loss) else []
    lines = [describe_range_test(found), *([describe_rules(found)] if every and picture else []), *picture]
    result = {name: getattr(found, name) for name in ("suggestion", "range", "recommended", "reason")}
    if every:
        result["rules"] = found.rules if picture else {}
    if target is not None:
        lines.append(apply_lr(*target, found.suggestion, trust=trust))
        result["recipe"] = str(target[0])
    emit(result | {"folder": str(folder)}, as_json=as_json, text="\n".join(lines))
