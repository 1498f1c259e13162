"""The command `sightline`: what it is called with, and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import click

from sightline import __version__
from sightline.cli.torchrun import group_for, is_one_of_many, own_arguments
from sightline.errors import InputError, SightlineError
from sightline.files import shown_name

DONE, FAILED = 0, 1  # wrong usage is 2, which click knows; a command may end with others (check: 3, 4)


class Group(click.Group):
    """Lists the commands in the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def app() -> None:
    """Train an image classifier, find what it gets wrong, and see where it looked."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 wrong usage; of check also 3 and 4.

    As one of several processes that torchrun started it does its part of the command, and an error is told
    by the first that has one.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if arguments is None:  # a terminal that lacks a letter gets its number
        for stream in (sys.stdout, sys.stderr):
            getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    with _signals(to_the_end=arguments is None):
        if not is_one_of_many():
            return _run(given, lambda: True)
        own = own_arguments(given)
        if own is None:
            return DONE
        with group_for(given) as tells:
            return _run(own, tells)


@contextlib.contextmanager
def _signals(*, to_the_end: bool) -> Iterator[None]:
    """Treat SIGTERM, by which schedulers and containers end a process, as Ctrl-C; only the first one counts.

    A second one would interrupt the tidying up after the first, in a library and with its traceback. SIGINT
    stays ignored where the process was started so: in the background of a script, or under nohup.
    to_the_end: this process ends with the command, so further ones are ignored until it has ended.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main one may set handlers
        yield
        return
    stopped = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    known = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.getsignal(one) for one in known if signal.getsignal(one) != signal.SIG_IGN}
    for one in before:
        signal.signal(one, interrupt)
    try:
        yield
    finally:
        if not (stopped and to_the_end):
            for one, handler in before.items():
                signal.signal(one, handler or signal.SIG_DFL)


def _run(given: list[str], tells: Callable[[], bool]) -> int:
    """Run the command; print an error, in one line, if `tells()` says that it is this process's to tell."""
    try:
        _check_text(given)
        code = app.main(args=given, prog_name="sightline", standalone_mode=False)
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
    return code if isinstance(code, int) else DONE


def _one_line(error: Exception) -> str:
    if isinstance(error, SightlineError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        return f"{shown_name(error.filename)}: {error.strerror}" if error.filename else error.strerror
    first = str(error).partition("\n")[0]
    if isinstance(error, MemoryError) or "can't allocate memory" in first or "out of memory" in first:
        return f"the memory is full ({first}); a smaller training.batch_size, data.limit or model needs less"
    return f"unexpected {type(error).__name__}: {first}; --debug shows the traceback"


def _check_text(given: Sequence[str]) -> None:
    """Raise InputError for an argument that no file and no message could hold."""
    for argument in given:
        if "\0" in argument:
            raise InputError(f"the argument {argument!r} holds a NUL character; leave it out")
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"the argument {shown_name(argument)} is not UTF-8 text; rename the file or write it in UTF-8"
            ) from None


def _fail(line: str, tells: Callable[[], bool]) -> int:
    if tells():
        click.echo(f"sightline: {line}", err=True)
    return FAILED
