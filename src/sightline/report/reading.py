"""Files of a run, read with one kind of message for what is missing or damaged."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sightline.errors import SightlineError

T = TypeVar("T")


def read_file(path: Path, read: Callable[[Path], T], *, required: bool = True) -> T | Any:
    """Return `read(path)`, or None for a missing file that is not required.

    Raises SightlineError, in one line, if the file is required and missing, or cannot be read.
    """
    if not path.is_file():
        if required:
            raise SightlineError(f"{path} is missing; name the folder of a finished run, or finish this one")
        return None
    try:
        return read(path)
    except SightlineError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise SightlineError(
            f"{path} cannot be read ({reason[:120]}); delete it and analyze the run again"
        ) from error


def read_json(path: Path, keys: tuple[str, ...], *, required: bool = True) -> dict[str, Any]:
    """Return the dict in a JSON file, which has to have `keys`; {} for a missing one that is not required.

    Raises SightlineError as `read_file` does.
    """

    def read(path: Path) -> dict[str, Any]:
        value = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in keys if not isinstance(value, dict) or key not in value]
        if missing or not isinstance(value, dict):
            raise ValueError(f"it lacks {', '.join(missing)}" if missing else "it holds no object")
        return value

    return read_file(path, read, required=required) or {}
