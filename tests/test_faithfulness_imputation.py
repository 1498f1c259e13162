"""Fills: noisy linear imputation against a dense solver, blur against a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sightline.faithfulness import blur, noisy_linear_imputation


def some_images(count: int = 3, side: int = 6, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((count, channels, side, side))).float()


def dense_imputation(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """ROAD's linear system for one channel, written pixel by pixel and solved densely."""
    height, width = image.shape
    unknown = [tuple(place) for place in np.argwhere(removed)]
    matrix, right = np.zeros((len(unknown), len(unknown))), np.zeros(len(unknown))
    for row, (i, j) in enumerate(unknown):
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                k, m = i + down, j + across
                if (down, across) == (0, 0) or not (0 <= k < height and 0 <= m < width):
                    continue
                weight = 1 / 12 if down and across else 1 / 6
                matrix[row, row] += weight
                if removed[k, m]:
                    matrix[row, unknown.index((k, m))] -= weight
                else:
                    right[row] += weight * image[k, m]
    filled = image.copy()
    filled[removed] = np.linalg.solve(matrix, right)
    return filled


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.99])
def test_imputation_equals_the_dense_solution(share):
    rng = np.random.default_rng(int(100 * share))
    images, removed = rng.random((3, 2, 11, 9)), np.zeros((3, 99), dtype=bool)
    for image in removed:
        image[rng.permutation(99)[: int(99 * share)]] = True
    removed = removed.reshape(3, 11, 9)
    nothing = torch.zeros(3, 2, 11, 9)
    filled = noisy_linear_imputation(torch.from_numpy(images), torch.from_numpy(removed), nothing.double())
    single = noisy_linear_imputation(torch.from_numpy(images).float(), torch.from_numpy(removed), nothing)
    for i in range(3):
        for c in range(2):
            exact = dense_imputation(images[i, c], removed[i])
            assert filled[i, c].numpy() == pytest.approx(exact, abs=1e-4)
            assert single[i, c].numpy() == pytest.approx(exact, abs=1e-4)


def test_imputation_of_a_solid_block_equals_the_dense_solution_at_the_size_of_cifar():
    image = np.random.default_rng(0).random((32, 32))
    removed = np.zeros((32, 32), dtype=bool)
    removed[4:, :26] = True  # to the border on two sides
    filled = noisy_linear_imputation(
        torch.from_numpy(image)[None, None], torch.from_numpy(removed)[None], torch.zeros(1, 1, 32, 32)
    )
    assert filled[0, 0].numpy() == pytest.approx(dense_imputation(image, removed), abs=2e-4)


def test_imputed_pixels_carry_noise_and_an_image_with_nothing_left_becomes_its_mean():
    images, everything = some_images(1, 5), torch.ones(1, 5, 5, dtype=torch.bool)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    filled = noisy_linear_imputation(images, everything, noise)
    assert torch.allclose(filled - 0.01 * noise, images.mean(dim=(2, 3), keepdim=True).expand_as(images))


def test_blur_keeps_a_constant_image_and_equals_a_loop():
    removed, noise = torch.ones(1, 5, 4, dtype=torch.bool), torch.zeros(1, 1, 5, 4)
    assert torch.allclose(blur(torch.full((1, 1, 5, 4), 0.3), removed, noise), torch.tensor(0.3))
    image = torch.rand(1, 1, 5, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(5, 4)
    for i in range(5):
        for j in range(4):
            total = 0.0
            for k in range(5):
                for m in range(4):
                    weight = np.exp(-0.5 * ((i - k) / 0.5) ** 2 - 0.5 * ((j - m) / 0.4) ** 2)
                    total += weight
                    expected[i, j] += weight * image[0, 0, k, m]
            expected[i, j] /= total
    assert torch.allclose(blur(image, removed, noise)[0, 0], expected, atol=1e-6)
