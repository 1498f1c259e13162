"""Files that are whole or absent: written beside their place, then renamed onto it.

A reader, a second process and a machine that lost power see the old file or the
new one, never a part of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sightline.errors import DamagedFileError, NotFoundError

_SUFFIX = ".partial"
SCHEMA = 1
"""Of the files of a run. A file that changes so that an older version would misread it gets a higher one."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it replaces `path`, on failure it goes.

    Raises OSError (disk full, folder not writable) from the write itself or from the rename.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write(file)` on a temporary binary file, then rename it to `path`."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        write(file)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_atomic(path, lambda file: file.write(text.encode()))


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
    """Delete the temporary files that a killed process left in `folder` (not in its subfolders)."""
    for partial in folder.glob(f".*{_SUFFIX}"):
        partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
