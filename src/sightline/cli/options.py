"""Options that several commands share, and how a result is printed."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sightline.runs import Run

PATH = click.Path(path_type=Path)


class ImageSize(click.ParamType):
    """The side of a square in pixels, or HEIGHTxWIDTH."""

    name = "pixels"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        sides = [int(side) for side in str(value).lower().split("x") if side.isdecimal()]
        if len(sides) != str(value).lower().count("x") + 1 or len(sides) > 2 or min(sides) < 8:
            self.fail(
                f"{value!r} is no size; it needs a side of 8 pixels or more, or HEIGHTxWIDTH", param, ctx
            )
        return sides[0] if len(sides) == 1 else tuple(sides)


def together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return one decorator for several options, listed in this order by --help."""
    return lambda function: functools.reduce(lambda f, option: option(f), reversed(options), function)


debug = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON on stdout; logs go to stderr."
)
quiet = click.option("--quiet", is_flag=True, help="No log, only the result.")
device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
data_dir = click.option(
    "--data-dir", type=PATH, help="Folder with the published archive of CIFAR, packed or unpacked."
)
trust = click.option(
    "--trust",
    multiple=True,
    metavar="MODULE",
    help="Import MODULE (package.module) if the file names a function in it; may be given several times.",
)
recipe = together(
    click.option(
        "--data", help="Data set: a name, a folder, a manifest (.csv, .parquet), .tar files, hf/NAME or .npz."
    ),
    data_dir,
    click.option("--model", help="Network: a name, timm/NAME, torchvision/NAME, hf/NAME, module:function."),
    click.option("--weights", type=PATH, help="Weights to start from: safetensors, or a state dict."),
    click.option("--epochs", type=click.IntRange(min=1), help="Epochs, in place of the recipe's."),
    click.option("--seed", type=click.IntRange(min=0), help="Seed, in place of the recipe's."),
    click.option("--fixes", type=PATH, help="Decisions from a report: relabel and drop images by them."),
    click.option(
        "--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a value of the recipe."
    ),
    trust,
    device,
)
folder = together(
    click.option("--out", type=PATH, help="The run's own folder  [default: runs/RECIPE-N]"),
    click.option("--resume", type=PATH, metavar="RUN", help="Go on with a run that was stopped."),
)

_PLACES = {
    "fixes": "data.fixes",
    "data": "data.name",
    "data_dir": "data.dir",
    "model": "model.name",
    "weights": "model.weights",
    "epochs": "training.epochs",
    "seed": "training.seed",
}


def all_changes(changes: Sequence[str], given: Mapping[str, Any]) -> list[str]:
    """Return the short options (`given`, by name) as changes of the recipe; those of --set come last.

    >>> all_changes(["model.name=resnet34"], {"epochs": 2, "data": None})
    ['training.epochs=2', 'model.name=resnet34']
    """
    values = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    short = [f"{_PLACES[n]}={json.dumps(value)}" for n, value in values.items() if value is not None]
    return [*short, *changes]


def emit(result: Mapping[str, Any] | Sequence[Any], *, as_json: bool, text: str = "") -> None:
    """Print the result as JSON, or `text` if there is any."""
    if as_json:
        click.echo(json.dumps(result, indent=2))
    elif text:
        click.echo(text)


def emit_headline(run: Run, *, as_json: bool, text: str = "") -> None:
    """Print what a run came to; of several processes the first one does."""
    from sightline.distributed import leads

    if not leads():  # the run's folder may be on another machine
        return
    keys = ("accuracy", "loss", "images", "mistakes", "seconds")
    headline = {"run": str(run.folder), "report": str(run.report), **{key: run.metrics[key] for key in keys}}
    emit(headline, as_json=as_json, text=text)
