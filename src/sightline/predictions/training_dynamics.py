"""What training saw of each image, epoch by epoch, and the file it is kept in.

>>> import numpy as np
>>> margin = np.array([[-1.0, 2.0, np.nan], [0.5, 3.0, np.nan]], np.float16)
>>> dynamics = Dynamics(margin, np.full((2, 3), 0.5, np.float16))
>>> dynamics.epochs, len(dynamics), dynamics.correct.tolist()
(2, 3, [[0.0, 1.0, nan], [1.0, 1.0, nan]])
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline.data.npz import read_arrays
from sightline.errors import DamagedFileError, InputError, NotFoundError
from sightline.files import check_regular, write_atomic


@dataclass(frozen=True)
class Dynamics:
    """Margin and probability of the label, from the pass that trained, for E epochs and N training images.

    Both are in the order of the training split, and NaN where an image was not trained on in that epoch: held
    out to validate, say. They are of the image as it was augmented then, before the step that it led to.

    Attributes:
        margin: (E, N) float16, the logit of the label minus the largest other one (Pleiss 2020, eq. 1).
        probability: (E, N) float16 in [0, 1], of the label.

    Raises:
        InputError: Two arrays that are not (E, N).
    """

    margin: np.ndarray
    probability: np.ndarray

    def __post_init__(self) -> None:
        if self.margin.ndim != 2 or self.margin.shape != self.probability.shape:
            raise InputError(
                f"margin is {self.margin.shape} and probability {self.probability.shape}; "
                "training dynamics are two arrays (E, N)"
            )

    def __len__(self) -> int:
        """Images, N."""
        return self.margin.shape[1]

    @property
    def epochs(self) -> int:
        """Epochs, E."""
        return self.margin.shape[0]

    @property
    def correct(self) -> np.ndarray:
        """1 where the label had the largest logit, alone, 0 where not, NaN where unseen: (E, N) float32."""
        return np.where(np.isnan(self.margin), np.float32(np.nan), self.margin > 0)


def save_dynamics(path: Path, dynamics: Dynamics) -> None:
    """Write the arrays `margin` and `probability` as `.npz`, whole or not at all."""
    arrays: dict[str, Any] = {"margin": dynamics.margin, "probability": dynamics.probability}
    write_atomic(path, lambda file: np.savez(file, **arrays))


def load_dynamics(path: str | Path) -> Dynamics:
    """Read what :func:`save_dynamics` wrote.

    Raises:
        NotFoundError: There is no such file.
        DamagedFileError: It is damaged.
    """
    try:
        check_regular(path)
        arrays = read_arrays(path)
        return Dynamics(arrays["margin"], arrays["probability"])
    except FileNotFoundError:
        raise NotFoundError(
            f"{path} is missing; training writes it: train again with 'sightline run'"
        ) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedFileError(
            f"{path} does not hold training dynamics ({error}); train again with 'sightline run'"
        ) from None
