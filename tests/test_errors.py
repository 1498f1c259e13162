"""An error of the package is also the built-in exception that a caller expects."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import sightline as sl
from sightline import errors
from sightline.audit import read_audit
from sightline.extensions import resolve
from sightline.training import load_recipe

MINE = [
    one
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, errors.SightlineError) and one is not errors.SightlineError
]


@pytest.mark.parametrize("kind", MINE, ids=lambda kind: kind.__name__)
def test_an_error_prints_its_one_line_whatever_it_is_made_of(kind):
    error = kind("images are 3; 4 are needed")
    assert str(error) == "images are 3; 4 are needed"
    assert isinstance(error, errors.SightlineError)


def test_each_kind_is_a_built_in_one_too():
    expected = {
        "InputError": ValueError,
        "InputTypeError": TypeError,
        "NotFoundError": FileNotFoundError,
        "DamagedFileError": ValueError,
        "WriteError": OSError,
        "MissingExtraError": ImportError,
        "DivergedError": ArithmeticError,
        "UntrustedError": PermissionError,
    }
    for name, builtin in expected.items():
        assert issubclass(getattr(errors, name), builtin), name


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        (ValueError, lambda folder: sl.load_data("no-such-data")),
        (ValueError, lambda folder: load_recipe("resnet18-cutout61")),
        (ValueError, lambda folder: load_recipe("shapes-quick", ["training.epochs=0"])),
        (ValueError, lambda folder: resolve("model", "resnet81", {"resnet18": tiny})),
        (PermissionError, lambda folder: resolve("model", "os:system", {}, trust=())),
        (FileNotFoundError, lambda folder: sl.load_run(folder / "nothing")),
        (FileNotFoundError, lambda folder: load_recipe(folder / "nothing.toml")),
        (FileNotFoundError, lambda folder: read_audit(folder)),
        (ValueError, lambda folder: sl.explain(tiny(), torch.rand(2, 3, 8, 8), [0, 1, 2], layer="0")),
        (ValueError, lambda folder: sl.explain(tiny(), torch.rand(2, 3, 8, 8), layer="nothing")),
    ],
)
def test_what_does_not_fit_raises_the_exception_that_a_caller_expects(kind, call, tmp_path: Path):
    with pytest.raises(errors.SightlineError) as caught:
        call(tmp_path)
    assert isinstance(caught.value, kind), type(caught.value)
    assert "\n" not in str(caught.value)
