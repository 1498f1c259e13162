"""Commands about the data: known faults planted in a copy, and decisions of several people in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sightline.cli import options
from sightline.cli.app import app
from sightline.cli.options import PATH, emit


class Share(click.ParamType):
    """A share, as 2% or 0.02."""

    name = "share"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 0.5:
            self.fail(f"{value!r} is no share; give one from 0% to 50%, as 2% or 0.02", param, ctx)
        return share


class ShareOf(click.ParamType):
    """A share and what it is of, as 5%:cat."""

    name = "share:what"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, tuple):
            return value
        share, colon, what = str(value).partition(":")
        if not colon or not what:
            self.fail(f"{value!r} is no share of anything; give both, as 5%:cat", param, ctx)
        return Share().convert(share, param, ctx), what


@app.command()
@click.argument("name")
@click.option("--out", type=PATH, required=True, help="Folder of the copy; it must not be there yet.")
@click.option("--labels", type=Share(), default=0.0, metavar="SHARE", help="Wrong labels in each split.")
@click.option(
    "--confused",
    type=click.Choice(["any", "alike"]),
    default="any",
    show_default=True,
    help="Wrong labels are of any other class, or of the class that looks most alike.",
)
@click.option("--copies", type=Share(), default=0.0, metavar="SHARE", help="Near-copies of training in test.")
@click.option("--mark", type=ShareOf(), metavar="SHARE:CLASS", help="A corner mark that goes with CLASS.")
@click.option(
    "--degrade", type=ShareOf(), metavar="SHARE:KIND", help="Pictures made worse: KIND is blurred or dark."
)
@click.option("--strangers", type=Share(), default=0.0, metavar="SHARE", help="Test pictures of no class.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@options.data_dir
@options.as_json
@options.debug
def plant(name: str, out: Path, data_dir: Path | None, as_json: bool, **faults: Any) -> None:
    """Copy data set NAME with known faults, to see what an audit finds of them.

    A manifest is written, and only those pictures that change; a run on it has "Planted truth" on its page.
    """
    from sightline.data import plant as plant_faults

    loading: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
    data = plant_faults(name, out, **faults, **loading)
    truth = data.truth
    assert truth is not None
    found = {
        "folder": str(out),
        "train": len(data.train),
        "test": len(data.test),
        "wrong_training_labels": len(truth.wrong_labels),
        "wrong_test_labels": len(truth.wrong_test),
        "copies": len(truth.leaks),
        "marked_test": int(truth.shortcut_test.sum()),
        "degraded_test": int(truth.degraded.sum()),
        "strangers": len(truth.strangers),
    }
    counts = ", ".join(
        f"{value:,} {key.replace('_', ' ')}" for key, value in found.items() if key != "folder"
    )
    emit(found, as_json=as_json, text=f"{out}: {counts}\nsightline run probe --data {out}")


@app.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, required=True, help="Write what all agree on to this fixes.json.")
@options.as_json
@options.debug
def fixes(files, out, as_json) -> None:
    """Merge the decisions of several people (fixes.json), and list the images on which they differ.

    What one decided alone, or all alike, is written; an image on which they differ is left undecided.
    """
    from sightline.audit import merge_decisions, read_decisions, write_decisions

    merged, differing = merge_decisions([read_decisions(path) for path in files])
    write_decisions(out, merged)
    rows = [
        {
            "split": said[0].split,
            "index": said[0].index,
            "path": said[0].path,
            "said": [" ".join(filter(None, (one.action, one.label))) for one in said],
        }
        for said in differing
    ]
    for row in [] if as_json else rows:
        click.echo(f"{row['split']} image {row['index']} {row['path']}: {' or '.join(row['said'])}")
    text = f"{out}: {len(merged.decisions)} decisions; {len(rows)} images on which people differ are left out"
    emit(
        {"fixes": str(out), "decisions": len(merged.decisions), "differing": rows}, as_json=as_json, text=text
    )
