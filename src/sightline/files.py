"""Files that are whole or absent, JSON with a schema number, and folders that one process writes at a time.

A file is written next to its final name, then renamed onto it. A reader, a second process and a machine
that lost power see the old file or the new one, never a part of it.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import re
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sightline.errors import BusyError, DamagedFileError, NotFoundError, WriteError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SCHEMA = 1
"""Of the files of a run. A file that changes so that an older version would misread it gets a higher one."""

LOCK = ".lock"
"""The file in a folder that says which process writes into it."""

_SUFFIX = ".partial"
_PARTIAL = re.compile(rf"\..+\.[a-z0-9_]{{8}}{re.escape(_SUFFIX)}")  # as mkstemp makes the names
_LONGEST = 255 - len("..12345678" + _SUFFIX)  # bytes of a name that leave room for the rest of a partial's
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # of some network file systems


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it replaces `path`, on failure it goes.

    Raises WriteError (disk full, folder not writable), with the name of `path`.
    """
    path = Path(path)
    start = os.fsdecode(os.fsencode(path.name)[:_LONGEST])
    with _named(path):
        handle, name = tempfile.mkstemp(prefix=f".{start}.", suffix=_SUFFIX, dir=path.parent)
    if fcntl is None:  # an open file could not be renamed
        os.close(handle)
        handle = None
    else:
        _try_lock(handle)  # a sweep leaves it alone for as long as this process lives
    partial = Path(name)
    try:
        with _named(path):
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.chmod(0o666 & ~_umask())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Give an error of the system the name of the file and what to do about it."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "make room" if full else "choose a place that you may write to"
        raise WriteError(f"{path} cannot be written ({os.strerror(error.errno)}); {advice}") from error


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write(file)` on a temporary binary file, then rename it to `path`."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        write(file)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    content = text.encode()
    write_atomic(path, lambda file: file.write(content))


def harmless_cell(text: str) -> str:
    """Return the text of a cell of CSV so that no spreadsheet takes it for a formula.

    >>> harmless_cell("=HYPERLINK(1)"), harmless_cell("cat")
    ("'=HYPERLINK(1)", 'cat')
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_json(path: Path, content: Mapping[str, Any], *, schema: int = SCHEMA) -> None:
    """Write a table as JSON with the schema number, whole or not at all.

    Raises ValueError for a number that is not finite: JSON has none.
    """
    write_text(path, json.dumps({"schema": schema, **content}, indent=2, allow_nan=False))


def read_json(path: Path, *, otherwise: str, schema: int = SCHEMA) -> dict[str, Any]:
    """Return the table in a JSON file of a run, without its schema number.

    Files of version 0.1 have no number. They hold what those of schema 1 hold, so nothing is to be changed.

    Args:
        path: The file.
        schema: The highest number that can be read.
        otherwise: What to do if it is damaged, such as "'sightline analyze RUN' writes it again".

    Raises:
        NotFoundError: There is no such file.
        DamagedFileError: It holds no table, or a newer version of Sightline wrote it.
    """
    try:
        check_regular(path)
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds no object but {_KINDS.get(type(content), 'a number')}")
        json.dumps(content, ensure_ascii=False).encode()  # half a character could not be written anywhere
    except FileNotFoundError:
        raise NotFoundError(f"{path} is missing; {otherwise}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = "half a character" if isinstance(error, UnicodeEncodeError) else " ".join(str(error).split())
        raise DamagedFileError(f"{path} cannot be read ({reason[:120]}); {otherwise}") from error
    found = content.pop("schema", 1)
    if type(found) is not int or found < 1:
        raise DamagedFileError(f"{path} has the schema {found!r}, which is no number; {otherwise}")
    check_schema(path, found, schema)
    return content


_KINDS = {list: "a list", str: "text", type(None): "nothing", bool: "yes or no"}


def check_schema(path: Path, found: int, known: int = SCHEMA) -> None:
    """Raise DamagedFileError if a newer version wrote the file."""
    if found > known:
        raise DamagedFileError(
            f"{path} was written by a newer Sightline (schema {found}, this one reads up to {known}); "
            "upgrade with: pip install --upgrade sightline-vision"
        )


def check_regular(path: str | Path) -> None:
    """Raise ValueError for a pipe, a device or a folder, which would be waited for or cannot be read.

    Raises FileNotFoundError if there is nothing.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (a path may be text)
        raise ValueError("it is not a regular file")


def shown_name(name: str | Path) -> str:
    """Return a file name as text that can be printed: bytes that are no UTF-8 as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def sweep(folder: Path) -> None:
    """Delete the temporary files that killed processes left in `folder` and its subfolders."""
    for place, _, names in os.walk(folder):
        for name in names:
            if _PARTIAL.fullmatch(name):
                with contextlib.suppress(OSError):
                    _delete_if_left(Path(place, name))


def _delete_if_left(partial: Path) -> None:
    handle = os.open(partial, os.O_RDWR)
    try:
        if _try_lock(handle) is not False:
            partial.unlink()
    finally:
        os.close(handle)


_held: dict[tuple[str, int], int] = {}  # lock files' descriptors, by folder and thread


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep every other process from writing into `folder` while the block runs.

    The lock file names its holder. The system's own lock on that file ends with the process, so a killed
    command leaves nothing that would have to be removed. Another machine's lock cannot be checked from here:
    it counts until its file is deleted. In one thread, holding what is held already is fine.

    Raises:
        BusyError: Another process, or another thread of this one, holds the folder.
        WriteError: The folder cannot be written to.
    """
    key = (os.path.realpath(folder), threading.get_ident())
    if key in _held:
        yield
        return
    path = folder / LOCK
    _held[key] = _claim(path)
    try:
        yield
    finally:
        handle = _held.pop(key, None)
        if handle is not None:  # a process forked from this one holds nothing
            try:
                path.unlink()
            except OSError:
                os.ftruncate(handle, 0)  # empty, it names nobody
            os.close(handle)


def _claim(path: Path) -> int:
    """Return the descriptor of the lock file, locked, with this process's name in it."""
    me = {"host": _host(), "process": os.getpid(), "process_start": _process_start(os.getpid())}
    me |= {"since": datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds")}
    me |= {"command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200] if sys.argv else ""}
    while True:
        handle = _open_lock(path)
        try:
            locked = _try_lock(handle)
            holder = _holder(handle)
            if locked is False or _may_live(holder, checked=locked is True):
                raise BusyError(_who(path, holder))
            with contextlib.suppress(FileNotFoundError):  # its holder may have deleted it since it was opened
                if os.path.samestat(os.fstat(handle), path.stat()):
                    with _named(path):
                        os.ftruncate(handle, 0)
                        os.lseek(handle, 0, os.SEEK_SET)
                        os.write(handle, json.dumps({"schema": SCHEMA, **me}).encode())
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise NotFoundError(f"{path.parent} is not a folder; name the folder of a finished run") from None
        raise WriteError(
            f"{path.parent} cannot be written to ({error.strerror}); change its permissions, or copy it to a "
            "place that you may write to"
        ) from error


def _try_lock(handle: int) -> bool | None:
    """Whether the system's lock on an open file could be had; None where the system has none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in _NO_LOCKS else False
    return True


def _holder(handle: int) -> dict[str, Any]:
    """What the lock file says; nothing if nobody wrote anything that can be read."""
    try:
        holder = json.loads(os.read(handle, 10_000))
    except (OSError, ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _may_live(holder: dict[str, Any], *, checked: bool) -> bool:
    """Whether the holder may be at work. checked: the system's lock says that none of this machine is."""
    if not holder:
        return False
    if holder.get("host") != _host():
        return True
    start = None if checked else _process_start(holder.get("process"))
    return start is not None and start == holder.get("process_start")


def _process_start(process: Any) -> str | None:
    """When a process of this machine began, in the system's own units; "" if unknown, None if it is gone."""
    if type(process) is not int or process < 1:
        return None
    if Path("/proc/self/stat").exists():
        try:
            return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
        except OSError:
            return None
    if os.name != "posix":
        return ""  # there is no question without consequences: os.kill ends it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""


def _who(path: Path, holder: dict[str, Any]) -> str:
    if not holder:
        return f"{path.parent} is in use by another process; wait until it ends"
    elsewhere = holder.get("host") != _host()
    place = f" on {holder.get('host')}" if elsewhere else ""
    line = f"{path.parent} is in use by process {holder.get('process')}{place} since {holder.get('since')}"
    line += f" ({holder['command']})" if holder.get("command") else ""
    if elsewhere or fcntl is None:
        return f"{line}; if that process has ended, delete {path}"
    return f"{line}; wait until it ends, or stop it"


def _host() -> str:
    import socket

    return socket.gethostname()


def _hold_nothing() -> None:
    """What a fork copied is not its own: with it open, the lock would outlive the process that holds it."""
    for handle in _held.values():
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hold_nothing)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
