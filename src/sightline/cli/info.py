"""The commands that only look: recipes, runs, data sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sightline.cli import options
from sightline.cli.app import app
from sightline.cli.options import PATH, ImageSize, emit
from sightline.logs import stage

if TYPE_CHECKING:
    from sightline.training import Figures


@app.command()
@click.argument("name", required=False)
@options.as_json
@options.debug
def recipes(name: str | None, as_json: bool) -> None:
    """List the recipes, or print one as TOML, ready to edit."""
    from sightline.cli.console import print_table
    from sightline.training import RECIPES, load_figures, load_recipe, recipe_toml

    if name:
        recipe = load_recipe(name, complete=False)
        text = RECIPES.get(name) or recipe_toml(recipe)
        emit(recipe.model_dump(exclude_none=True), as_json=as_json, text=text.rstrip())
        return
    found, measured = {key: load_recipe(key) for key in RECIPES}, load_figures()
    described = {
        key: {
            "description": recipe.description,
            "source": recipe.published.model_dump(include={"train", "test"}),
            "here": dataclasses.asdict(measured[key]) if key in measured else None,
        }
        for key, recipe in found.items()
    }
    emit(described, as_json=as_json)
    if not as_json:
        rows = [
            (key, recipe.description, _source_cell(recipe.published.test), _measured_cell(measured.get(key)))
            for key, recipe in found.items()
        ]
        print_table(("recipe", "what it is", "source", "here (runs)"), rows, right=("source", "here (runs)"))
        click.echo("Test accuracy: that of the source, and the mean of the runs here; - is not measured.")


def _source_cell(test: float | None) -> str:
    return "-" if test is None else f"{test:.2f} %"


def _measured_cell(figures: Figures | None) -> str:
    return f"{sum(figures.test) / len(figures.test):.2f} % ({len(figures.test)})" if figures else "-"


@app.command()
@click.option("--runs", "folder", type=PATH, default="runs", show_default=True, help="Folder of the runs.")
@options.as_json
@options.debug
def runs(folder: Path, as_json: bool) -> None:
    """List the runs here: recipe, data, metrics, time."""
    from sightline.cli.console import print_table
    from sightline.runs import list_runs, summarize_run

    rows = [summarize_run(path) for path in list_runs(folder)]
    emit(rows, as_json=as_json, text="" if rows else f"no runs in {folder}; 'sightline run' makes one")
    if rows and not as_json:
        for row in rows:
            if row["damaged"]:
                click.echo(f"{row['run']} is damaged: {row['damaged']}", err=True)
        headings = ("run", "recipe", "data", "accuracy", "balanced", "training")
        print_table(headings, [_run_cells(row) for row in rows], right=headings[3:])


def _run_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    accuracy = "unfinished" if row["accuracy"] is None else f"{100 * row['accuracy']:.2f} %"
    if row["damaged"]:
        accuracy = "damaged"
    seconds = "-" if row["seconds"] is None else f"{row['seconds']:.0f} s"
    balanced = "-" if row["balanced_accuracy"] is None else f"{100 * row['balanced_accuracy']:.2f} %"
    return row["run"], row["recipe"] or "?", row["data"] or "?", accuracy, balanced, seconds


@app.command()
@click.argument("name")
@options.data_dir
@click.option("--image-size", type=ImageSize(), help="Side of a folder's pictures in pixels, or 96x128.")
@click.option(
    "--resize",
    type=click.Choice(["crop", "pad", "stretch"]),
    default="crop",
    show_default=True,
    help="What becomes of pictures of another shape.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn by chance."
)
@click.option("--out", type=PATH, help="PNG file of the sample sheet  [default: NAME-samples.png]")
@options.as_json
@options.debug
def data(name, data_dir, image_size, resize, seed, out, as_json) -> None:
    """Show the statistics of a data set and write a sheet of samples.

    NAME is cifar10, cifar100, shapes, a folder, a manifest (.csv, .parquet), .tar files, hf/NAME or an .npz
    file.
    """
    from sightline.cli.console import log_shown
    from sightline.data import describe, load_data
    from sightline.report import write_sample_sheet

    with log_shown(to_stderr=True, quiet=False), stage("loading the data"):
        loaded = load_data(name, data_dir=data_dir, image_size=image_size, resize=resize, seed=seed)
    card = describe(loaded)
    sheet = out or Path(f"{loaded.name}-samples.png")
    images: Any = loaded.train.images  # an array, or files that are read where it is indexed
    write_sample_sheet(images, loaded.train.labels, loaded.class_names, sheet)
    emit({**card, "samples": str(sheet)}, as_json=as_json)
    if not as_json:
        _print_statistics(card)
        click.echo(f"samples: {sheet}")


def _print_statistics(card: Mapping[str, Any]) -> None:
    from sightline.cli.console import print_table

    height, width = card["image_size"]
    click.echo(f"{card['name']}: {card['source']}, {height}x{width} pixels")
    counts = zip(card["class_names"], card["train_counts"], card["test_counts"], strict=True)
    rows = [(name, str(train), str(test)) for name, train, test in counts]
    rows.append(("all", str(sum(card["train_counts"])), str(sum(card["test_counts"]))))
    print_table(("class", "training", "test"), rows, right=("training", "test"))
    for word in ("mean", "std"):
        values = " ".join(f"{value:.4f}" for value in card[word])
        click.echo(f"{word} per channel of the training split: {values}")
    for line in card["notes"]:
        click.echo(line)
    for line in card["skipped"]:
        click.echo(f"skipped {line}")
