"""What tests of several files share."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that asked a hub would wait for it
# What tests keep does not belong to whoever runs them, and goes with the process.
os.environ["SIGHTLINE_CACHE"] = tempfile.mkdtemp(prefix="sightline-tests-")
atexit.register(shutil.rmtree, os.environ["SIGHTLINE_CACHE"], ignore_errors=True)

# Collecting it would put its folder on the path, as if it were installed for all tests.
collect_ignore = ["plugin"]


def without(reason: str) -> None:
    """Skip a test that cannot run here; in CI, where nothing may be missing, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI runs every test", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, or a skip with the reason."""
    try:
        from playwright import sync_api
    except ImportError:
        without("playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        without("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def torchvision():
    """The package; where it is built for another torch, with the operators declared that it misses then."""
    import importlib.util

    import torch

    if importlib.util.find_spec("torchvision") is None:
        without("torchvision is not installed")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        module = importlib.import_module("torchvision")
        module._kept_by_tests = library  # the operators live as long as it does
        return module
