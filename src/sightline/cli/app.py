"""The command `sightline`: what it is called with, and how it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from sightline.errors import SightlineError

DONE, FAILED = 0, 1  # wrong usage is 2, which click knows


class Group(click.Group):
    """Lists the commands in the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="sightline")
def app() -> None:
    """Train an image classifier, find what it gets wrong, and see where it looked."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 wrong usage."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app.main(args=given, prog_name="sightline", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _fail("stopped")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: no more output
        return FAILED
    except Exception as error:
        if "--debug" in given:
            raise
        return _fail(_one_line(error))
    return DONE


def _one_line(error: Exception) -> str:
    if isinstance(error, SightlineError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    first = str(error).partition("\n")[0]
    return f"unexpected {type(error).__name__}: {first}; --debug shows the traceback"


def _fail(line: str) -> int:
    click.echo(f"sightline: {line}", err=True)
    return FAILED
