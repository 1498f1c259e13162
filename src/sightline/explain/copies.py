"""Several variants of every image of a case in one pass: n copies of B images, (n, B, C, H, W)."""

from __future__ import annotations

import torch

from sightline.explain.case import Case


def per_pass(case: Case) -> int:
    """Return how many copies of all images one pass takes; one, where the images alone fill it."""
    return max(1, case.batch_size // len(case.images))


def scores(case: Case, copies: torch.Tensor) -> torch.Tensor:
    """Return the score of each copy, (n, B, C, H, W) to (n, B), for the target of its image."""
    rows = torch.arange(len(case.images), device=copies.device).repeat(len(copies))
    images = copies.flatten(0, 1).to(case.images.dtype)
    return case.score(images, rows).view(len(copies), -1)
