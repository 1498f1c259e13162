"""What a method of one argument is given, each part against the model run by hand."""

import numpy as np
import pytest
import torch
from attribution_nets import Staged, nonlinear, pictures, pooled, seeded
from attribution_transformers import vit_timm
from torch import nn

from sightline.attribution import AttributionContext, explain
from sightline.attribution.hooks import at_rest
from sightline.attribution.wrapped_model import wrap_model


def make(model: nn.Module, images=None, requested_targets=None, layer=None, **options) -> AttributionContext:
    return AttributionContext(
        wrap_model(model), pictures() if images is None else images, requested_targets, layer, **options
    )


def test_score_is_the_logit_of_the_target_that_each_image_belongs_to():
    model = seeded(pooled)
    context, others = make(model, requested_targets=torch.tensor([3, 0, 1])), pictures(4, seed=9)
    expected = model(others).detach()
    with at_rest(model):
        scores = context.score(others, torch.tensor([2, 0, 0, 1]))
        np.testing.assert_allclose(scores, expected[range(4), [1, 3, 3, 0]], rtol=1e-5)
        np.testing.assert_allclose(context.score(others[:3]), expected[range(3), [3, 0, 1]], rtol=1e-5)
        assert not scores.requires_grad
        with torch.enable_grad():
            assert context.score(others[:3].requires_grad_()).requires_grad


def test_chunks_cover_everything_once():
    context = make(seeded(pooled), batch_size=4)
    assert [(part.start, part.stop) for part in context.chunks(10)] == [(0, 4), (4, 8), (8, 10)]
    assert list(context.chunks(0)) == []


def test_record_is_what_the_layer_puts_out_and_its_gradient():
    model, images = seeded(nonlinear), pictures()
    context = make(model, images, torch.tensor([0, 3, 1]), "3")
    with at_rest(model):
        activations, gradients = context.record()
    A = model[:4](images).detach().requires_grad_()
    (expected,) = torch.autograd.grad(model[4:](A)[range(3), [0, 3, 1]].sum(), A)
    np.testing.assert_allclose(activations, A.detach(), rtol=1e-5)
    np.testing.assert_allclose(gradients, expected, rtol=1e-4, atol=1e-8)
    with at_rest(model):
        mixed = context.slopes(torch.tensor([[0.0, 1, 0, -2]] * 3))
    (expected,) = torch.autograd.grad((model[4:](A) @ torch.tensor([0.0, 1, 0, -2])).sum(), A)
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-8)


class Skip(nn.Module):
    """A skip connection around the layer, and a concatenation if asked for: the first broadcasts."""

    def __init__(self, join: bool):
        super().__init__()
        self.join = join
        self.stem, self.conv = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.fc = nn.ReLU(inplace=True), nn.Linear(8 if join else 4, 3)
        self.stems = 0

    def forward(self, x):
        before = self.stem(x)
        self.stems += len(x)
        after = self.act(self.conv(before))
        both = torch.cat([after, before], 1) if self.join else after + before
        return self.fc((both**2).mean((2, 3)))


@pytest.mark.parametrize(("join", "stems"), [(False, 1), (True, 6)])
def test_the_tail_runs_what_comes_before_the_layer_once_where_it_broadcasts(join, stems):
    model = Skip(join)
    context = make(model, requested_targets=1, layer="conv")
    replaced = torch.randn(6, 4, 10, 10, generator=torch.Generator().manual_seed(2))
    kept = replaced.clone()
    with at_rest(model):
        context.run_from_layer(replaced, row=2)
        model.stems = 0
        logits = context.run_from_layer(replaced, row=2)
        assert model.stems == stems
        assert torch.equal(replaced, kept)  # an in-place ReLU follows
        before = model.stem(pictures()[2:])
        after = replaced.relu()
        both = torch.cat([after, before.expand(6, -1, -1, -1)], 1) if join else after + before
        np.testing.assert_allclose(logits, model.fc((both**2).mean((2, 3))), rtol=1e-4, atol=1e-5)


def test_the_tail_gives_gradients_when_they_are_enabled():
    model = seeded(nonlinear)
    context = make(model, requested_targets=1, layer="3")
    with at_rest(model):
        _, gradients = context.record()
        with torch.enable_grad():
            leaf = context.activations[1:2].clone().requires_grad_()
            (again,) = torch.autograd.grad(context.run_from_layer(leaf, 1)[0, 1], leaf)
    np.testing.assert_allclose(again[0], gradients[1], rtol=1e-4, atol=1e-7)


def test_the_tail_of_a_transformer_keeps_the_class_token():
    model, images = seeded_transformer(vit_timm), pictures(2, size=24)
    context = make(model, images, 1, "blocks.1.norm1")
    with at_rest(model):
        same = context.run_from_layer(context.activations[[1, 1]], row=1)
        np.testing.assert_allclose(same, context.logits[[1, 1]], rtol=1e-4, atol=1e-5)
        changed = context.run_from_layer(
            context.activations[[0, 1]], row=1
        )  # the patches of image 0, the class token of 1
        tokens = model.blocks[1].norm1(model.blocks[0](embedded(model, images)))
        tokens[1, 1:] = tokens[0, 1:]
        x = model.blocks[0](embedded(model, images))[1:]
        x = x + model.blocks[1].attn(tokens[1:])
        x = x + model.blocks[1].mlp(model.blocks[1].norm2(x))
        np.testing.assert_allclose(changed[0], model.head(model.norm(x)[0, 0]), rtol=1e-4, atol=1e-5)


def seeded_transformer(build) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().eval()


def embedded(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.prefix.expand(len(images), -1, -1), model.patch_embed(images)], 1)


def test_the_head_is_found_by_shape_and_accepted_by_its_numbers():
    model = seeded(Staged)
    at_the_end, before = make(model, layer="layer4"), make(model, layer="layer3")
    with at_rest(model):
        head = at_the_end.head
        assert head is not None
        assert head.name == "fc"
        assert torch.equal(head.weight, model.fc.weight)
        assert before.head is None  # layer3 has 8 channels too, as many as the head takes
    model.fc.register_forward_hook(lambda module, inputs, output: output / 9)
    with at_rest(model):
        assert make(model, layer="layer4").head is None


def test_a_methods_first_read_makes_one_pass_for_everything():
    class Counting(Staged):
        passes = 0

        def forward(self, x):
            self.passes += 1
            return super().forward(x)

    model = Counting().eval()

    def method(context):
        context.record()
        context.slopes(torch.ones_like(context.logits))
        return context.activations.mean(1)

    explain(model, pictures(4), layer="layer3", method=method)
    assert model.passes == 1
    explain(model, pictures(4), method=method, batch_size=2)
    # The first batch: the choice of a layer, and its record; the second knows the layer.
    assert model.passes == 1 + 2 + 1


def test_logits_first_read_inside_a_precision_of_the_methods_own_are_in_full_precision():
    def method(context):
        with torch.autocast("cpu", torch.bfloat16):
            return context.score(context.images)[:, None, None] * context.images.mean(1)

    model, images = seeded(Staged), pictures()
    with torch.no_grad():
        np.testing.assert_allclose(explain(model, images, method=method).logits, model(images), rtol=1e-5)


def test_only_a_layer_that_was_read_is_named():
    model = seeded(Staged)
    assert (
        explain(model, pictures(), method=lambda context: context.images.mean(1), layer="layer2").layer
        == "input"
    )
    assert explain(
        model, pictures(), method=lambda context: context.activations.mean(1), layer="layer2"
    ).layer == ("layer2")
