"""Where runs live: `runs/NAME/`, one folder each, and `runs/latest`, a link to the newest."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import sys
import tomllib
from pathlib import Path
from typing import Any

from sightline.errors import SightlineError

RUNS = Path("runs")


def new_folder(name: str, out: Path | None = None, *, runs: Path = RUNS) -> Path:
    """Make and return the folder of a new run: `out`, or the next free `runs/NAME-N`.

    Raises SightlineError if `out` holds anything, or cannot be made.
    """
    try:
        if out is None:
            return _next(runs, name)
        if out.is_dir() and any(out.iterdir()):
            raise SightlineError(
                f"{out} already holds {'a run' if (out / 'recipe.toml').exists() else 'other files'}; "
                "choose another --out, or go on with --resume"
            )
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SightlineError(
            f"cannot make {error.filename}: {error.strerror}; choose another --out"
        ) from None
    return out


def _next(runs: Path, name: str) -> Path:
    runs.mkdir(parents=True, exist_ok=True)
    taken = [path.name.removeprefix(f"{name}-") for path in runs.glob(f"{name}-*")]
    number = 1 + max((int(tail) for tail in taken if tail.isdecimal()), default=0)
    while True:  # another process may take the number between the look and the making
        with contextlib.suppress(FileExistsError):
            folder = runs / f"{name}-{number}"
            folder.mkdir()
            _point_latest(folder)
            return folder
        number += 1


def _point_latest(folder: Path) -> None:
    link = folder.parent / "latest"
    beside = folder.parent / f".latest.{os.getpid()}"
    with contextlib.suppress(OSError):  # a system without links has no `latest`; nothing depends on it
        beside.symlink_to(folder.name)
        beside.replace(link)


def existing_folder(path: Path) -> Path:
    """Return the folder of a run that is there.

    Raises SightlineError if there is none, naming the runs beside it.
    """
    folder = path.resolve() if path.is_symlink() else path
    if (folder / "recipe.toml").is_file():
        return folder
    beside = sorted(p.parent.name for p in path.parent.glob("*/recipe.toml") if not p.parent.is_symlink())
    known = f"runs there: {', '.join(beside)}" if beside else "'sightline run' makes one"
    raise SightlineError(f"{path} is not the folder of a run; {known}")


def list_runs(runs: Path = RUNS) -> list[Path]:
    """Return the folders of the runs in `runs`, oldest first."""
    found = [p.parent for p in runs.glob("*/recipe.toml") if not p.parent.is_symlink()]
    return sorted(found, key=lambda folder: (folder / "recipe.toml").stat().st_mtime)


def describe_environment(device: str) -> dict[str, Any]:
    """Return what a run depends on beyond its recipe: versions, hardware, command, time (UTC)."""
    import torch

    packages = ("sightline", "torch", "numpy", "pandas", "albumentations")
    versions = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    hardware = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
    }
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"started": started, "command": command, "versions": versions, "hardware": hardware}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def summarize_run(folder: Path) -> dict[str, Any]:
    """Return a row of the table of runs: run, recipe, data, accuracy, seconds (None while unfinished)."""
    recipe = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    metrics: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {
        "run": str(folder),
        "recipe": recipe.get("name", "?"),
        "data": recipe.get("data", {}).get("name", "?"),
        "accuracy": metrics.get("accuracy"),
        "seconds": metrics.get("seconds", {}).get("train"),
    }
