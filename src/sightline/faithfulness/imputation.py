"""What replaces removed pixels. A fill is a function `(images, removed, noise) -> images`.

images: float (M, C, H, W); removed: bool (M, H, W); noise: (M, C, H, W), standard normal, drawn by
the measure from its seed, so that a fill is a pure function. What a fill returns outside of
`removed` is not used.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Fill = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

NOISE = 0.01  # Rong 2022: enough to hide that imputed pixels are an exact mean of their neighbours
TOLERANCE = 1e-6
_CACHED = 150_000  # numbers of images that are solved together on a CPU: one of 224 x 224, 48 of 32 x 32


def zero(images: torch.Tensor, removed: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Black, where images are in [0, 1]."""
    return torch.zeros_like(images)


def mean(images: torch.Tensor, removed: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The mean of each channel over the whole image."""
    return images.mean(dim=(2, 3), keepdim=True).expand_as(images)


def blur(images: torch.Tensor, removed: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The image under a Gaussian blur with a standard deviation of a tenth of each side.

    Weights are normalised at the border, so a constant image stays as it is.
    """
    rows, columns = (_blur_matrix(side, images) for side in images.shape[2:])
    return rows @ images @ columns.T  # (M, C, H, W)


def _blur_matrix(side: int, like: torch.Tensor) -> torch.Tensor:
    pixel = torch.arange(side, device=like.device, dtype=like.dtype)
    weights = torch.exp(-0.5 * ((pixel[:, None] - pixel) / (side / 10)) ** 2)  # (side, side)
    return weights / weights.sum(dim=1, keepdim=True)


def noisy_linear_imputation(images: torch.Tensor, removed: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Each removed pixel as the weighted mean of its neighbours, plus noise of 0.01 (Rong 2022, section 4.3).

    Direct neighbours weigh 1/6 and diagonal ones 1/12 (renormalised at the border); removed
    neighbours are unknowns as well, which makes a sparse linear system. It is solved by conjugate
    gradients for all images and channels at once, each to a residual of 1e-6 per pixel. An image
    with nothing left becomes its own mean.
    """
    at_once = len(images)
    if images.device.type == "cpu":  # as many as its cache holds; a batch equals its images, so bits stay
        at_once = max(1, _CACHED // images[0].numel())
    parts = zip(images.split(at_once), removed.split(at_once), strict=True)
    return torch.cat([_impute(*part) for part in parts]) + NOISE * noise


def _impute(images: torch.Tensor, removed: torch.Tensor) -> torch.Tensor:
    """Solve d x - S x = S kept on the removed pixels, with S the sum over weighted neighbours."""
    gone = removed[:, None].to(images.dtype)  # (M, 1, H, W)
    kept = images * (1 - gone)
    weight = _neighbours(torch.ones_like(images[:1, :1]))  # (1, 1, H, W): 1 inside, less at the border
    known = (1 - gone).sum(dim=(2, 3), keepdim=True)
    # The mean of what is left is close; it solves the system of an image with nothing left exactly.
    left = torch.where(known > 0, kept.sum(dim=(2, 3), keepdim=True) / known.clamp_min(1), _mean(images))
    found = left * gone  # (M, C, H, W)

    def system(values: torch.Tensor) -> torch.Tensor:
        return (weight * values - _neighbours(values)) * gone

    residual = _neighbours(kept) * gone - system(found)
    direction, size = residual, _dot(residual, residual)  # (M, C, 1, 1)
    enough = TOLERANCE**2 * gone.sum(dim=(2, 3), keepdim=True)
    for _ in range(4 * sum(images.shape[2:])):
        # One system stops when it is solved, whatever the others do: a batch equals its images.
        active = size > enough
        if not active.any():
            break
        image = system(direction)
        step = torch.where(active, size / _dot(direction, image), 0)
        found, residual = found + step * direction, residual - step * image
        smaller = torch.where(active, _dot(residual, residual), size)
        direction = residual + torch.where(active, smaller / size, 0) * direction
        size = smaller
    return found + kept


def _neighbours(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of 1/6 of each direct and 1/12 of each diagonal neighbour; nothing beyond the border.

    That is [1 2 1] down and across, over 12, less the 4/12 that this gives to the pixel itself.
    """
    padded = torch.nn.functional.pad(values, (1, 1, 1, 1))
    across = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 12 - values / 3


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum(dim=(2, 3), keepdim=True)


def _mean(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=(2, 3), keepdim=True)
