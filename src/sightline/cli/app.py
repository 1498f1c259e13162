"""The command `sightline`: what it is called with, and how it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import click

from sightline import __version__
from sightline.cli.torchrun import group_for, is_one_of_many, own_arguments
from sightline.errors import SightlineError

DONE, FAILED = 0, 1  # wrong usage is 2, which click knows


class Group(click.Group):
    """Lists the commands in the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def app() -> None:
    """Train an image classifier, find what it gets wrong, and see where it looked."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 wrong usage.

    As one of several processes that torchrun started it does its part of the command, and an error is told
    by the first that has one.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not is_one_of_many():
        return _run(given, lambda: True)
    own = own_arguments(given)
    if own is None:
        return DONE
    with group_for(given) as tells:
        return _run(own, tells)


def _run(given: list[str], tells: Callable[[], bool]) -> int:
    """Run the command; print an error, in one line, if `tells()` says that it is this process's to tell."""
    try:
        app.main(args=given, prog_name="sightline", standalone_mode=False)
    except click.ClickException as error:
        if tells():
            error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _fail("stopped", tells)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: no more output
        return FAILED
    except Exception as error:
        if "--debug" in given:
            raise
        return _fail(_one_line(error), tells)
    return DONE


def _one_line(error: Exception) -> str:
    if isinstance(error, SightlineError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    first = str(error).partition("\n")[0]
    return f"unexpected {type(error).__name__}: {first}; --debug shows the traceback"


def _fail(line: str, tells: Callable[[], bool]) -> int:
    if tells():
        click.echo(f"sightline: {line}", err=True)
    return FAILED
