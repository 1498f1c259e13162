"""The commands that watch over runs: rules for one."""

from __future__ import annotations

from pathlib import Path

import click

from sightline.cli import options
from sightline.cli.app import app
from sightline.cli.options import PATH, emit


@app.command()
@click.argument("run", type=PATH)
@click.option("--against", type=PATH, metavar="BASE", help="The run that rules mean by BASE.")
@click.option("--rules", type=PATH, help='TOML file with rules = ["accuracy >= 0.9", ...]  [default: a list]')
@click.option("--junit", type=PATH, help="Write the result as JUnit XML, too.")
@click.option("--markdown", type=PATH, help="Write the result as a table in Markdown, too.")
@options.as_json
@options.debug
@click.pass_context
def check(
    ctx: click.Context,
    run: Path,
    against: Path | None,
    rules: Path | None,
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
) -> None:
    """Hold RUN to rules, for a script or a nightly job.

    A rule holds by its 95 % interval or not at all. Ends with 0 if all passed, 3 if one failed, 4 if one is
    undecided and none failed.
    """
    from sightline.cli.console import print_table
    from sightline.report.check_tables import HEADINGS, check_cells, check_lead
    from sightline.runs import check as check_run

    found = check_run(run, rules, against=against, junit=junit, markdown=markdown)
    emit(found.to_dict(), as_json=as_json)
    if not as_json:
        print_table(HEADINGS, [check_cells(one) for one in found.rules], right=("value", "images"))
        click.echo(check_lead(found))
    ctx.exit(found.exit_code)
