"""`score(output, index)`: a number of its own for each image, whatever the batches and the method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import sightline as sl
from sightline.attribution import METHODS
from sightline.faithfulness import class_logit
from sightline.faithfulness.measurement import logits_of


class Embedder(nn.Module):
    """Pictures to unit vectors (B, 6), in a dict as libraries return them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, stride=2), nn.Tanh()
        )
        self.head = nn.Linear(8, 6)

    def forward(self, images):
        return {"embedding": nn.functional.normalize(self.head(self.body(images).mean((2, 3))), dim=1)}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Embedder().eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


WANTED = torch.nn.functional.normalize(torch.randn(5, 6, generator=torch.Generator().manual_seed(2)), dim=1)


def similarity(output, index):
    return (output["embedding"] * WANTED.to(output["embedding"])[index]).sum(1)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_each_image_has_its_own_target_in_any_batch_and_by_any_method(model, images, method):
    torch.manual_seed(0)
    try:
        together = sl.explain(model, images, method=method, layer="body.3", score=similarity, batch_size=2)
    except sl.SightlineError as error:
        pytest.skip(str(error))
    for k in range(len(images)):

        def alone(output, k=k):
            return (output["embedding"] * WANTED[k]).sum(1)

        if method in ("rise", "smooth_grad"):  # their draws are of the whole batch
            continue
        single = sl.explain(model, images[k : k + 1], method=method, layer="body.3", score=alone)
        np.testing.assert_allclose(together.maps[k], single.maps[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(together.logits[k], single.logits[0], rtol=1e-5)


def test_the_layer_is_found_and_the_model_inspected_with_such_a_score(model, images):
    found = sl.explain(model, images, score=similarity)
    own = sl.explain(model, images, score=lambda output: output["embedding"][:, 0])
    assert found.layer == own.layer
    assert sl.preflight(model, images, score=similarity).layer == found.layer


def test_measures_follow_the_rows(model, images):
    rows = torch.tensor([4, 1, 1, 0, 3])
    found = logits_of(model, images[rows], score=similarity, rows=rows, batch_size=2)[:, 0]
    with torch.no_grad():
        expected = (model(images[rows])["embedding"] * WANTED[rows]).sum(1)
    torch.testing.assert_close(found, expected)
    watched = class_logit(model, torch.zeros(5, dtype=torch.int64), score=similarity)
    torch.testing.assert_close(watched(images[rows], rows), expected)


def test_methods_are_compared_by_it(model, images):
    found = sl.compare_methods(
        model, images, methods=["grad_cam", "layer_cam"], measures=["deletion"], layer="body.3",
        score=similarity, budget="fast",
    )  # fmt: skip
    assert set(found.verdicts) <= {"grad_cam", "layer_cam"}
    assert found.verdicts


def test_a_function_of_one_argument_and_a_default_is_not_asked_for_an_index(model, images):
    def first(output, cell=0):
        return output["embedding"][:, cell]

    assert sl.explain(model, images, layer="body.3", score=first).maps.shape[0] == 5
