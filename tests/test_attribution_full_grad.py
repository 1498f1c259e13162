import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attribution_nets import Staged, pictures, pooled, seeded
from torch import nn

from sightline.attribution import explain
from sightline.attribution.context import AttributionContext
from sightline.attribution.hooks import at_rest
from sightline.attribution.methods.gradients import each_term, full_grad
from sightline.attribution.wrapped_model import wrap_model
from sightline.models import Normalize


class Piecewise(nn.Module):
    """Affine layers, ReLU (module, functional, in place, reused) and max-pooling, each with a bias."""

    def __init__(self, classes=4):
        super().__init__()
        self.normalize = Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.bn3 = nn.BatchNorm2d(6, affine=False)
        self.relu = nn.ReLU(inplace=True)
        self.hidden, self.fc = nn.Linear(6, 5), nn.Linear(5, classes)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(self.normalize(x))))
        x = F.max_pool2d(F.relu(x + self.bn2(self.conv2(x))), 2)
        x = self.relu(self.bn3(self.conv2(x)))  # conv2 once more
        return self.fc(self.hidden(x.mean((2, 3))).relu_())


def scrambled(build):
    """A network in float64 whose batch normalisations have scales and shifts of their own."""
    model = seeded(build).double()
    generator = torch.Generator().manual_seed(7)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            module.weight.data = torch.rand(module.weight.shape, generator=generator).double() + 0.5
            module.bias.data = torch.randn(module.bias.shape, generator=generator).double()
    return model


def terms_of(model, images, targets):
    found = []
    context = AttributionContext(wrap_model(model), images, targets)
    with at_rest(model):
        each_term(context, found.append)
        return found, context.logits.gather(1, context.targets[:, None])[:, 0]


@pytest.mark.parametrize("build", [Piecewise, pooled])
def test_all_terms_of_a_relu_network_sum_to_the_logit_exactly(build):
    model, images = scrambled(build), pictures(5).double()
    terms, logits = terms_of(model, images, torch.tensor([0, 1, 2, 3, 0]))
    np.testing.assert_allclose(sum(term.flatten(1).sum(1) for term in terms), logits, rtol=1e-12)


def bias_of(module):
    """The bias by its formula; for batch normalisation, the implicit one of section 3.1."""
    if isinstance(module, Normalize):
        return (-module.mean / module.std).flatten()
    if isinstance(module, nn.BatchNorm2d):
        gamma = module.weight if module.affine else torch.ones(6)
        beta = module.bias if module.affine else torch.zeros(6)
        return beta - gamma * module.running_mean / torch.sqrt(module.running_var + module.eps)
    return module.bias if isinstance(module, nn.Conv2d) else None


def naive_full_grad(model, image, target):
    """Equation 8 as in the authors' code, a layer at a time, the channels resized one by one."""
    kept = []
    for module in model.modules():
        if bias_of(module) is not None:
            module.register_forward_hook(
                lambda module, inputs, output: kept.append((bias_of(module), output))
            )
        if isinstance(module, nn.ReLU):
            module.inplace = False
    image = image[None].clone().requires_grad_()
    gradients = torch.autograd.grad(model(image)[0, target], [image, *(output for _, output in kept)])
    products = [image.detach() * gradients[0]]
    for (bias, _), gradient in zip(kept, gradients[1:], strict=True):
        products.append(bias.detach()[None, :, None, None] * gradient)
    total = torch.zeros(image.shape[2:], dtype=image.dtype)
    for product in products:
        product = product.abs()
        product = (product - product.min()) / (product.max() - product.min())
        for channel in product[0]:
            total += F.interpolate(channel[None, None], total.shape, mode="bilinear")[0, 0]
    return total


def test_it_equals_the_paper_a_layer_and_a_channel_at_a_time():
    model, images, targets = scrambled(Piecewise), pictures(3).double(), [3, 0, 1]
    expected = [
        naive_full_grad(scrambled(Piecewise), image, target)
        for image, target in zip(images, targets, strict=True)
    ]
    result = explain(model, images, targets, method=full_grad)
    np.testing.assert_allclose(result.maps, torch.stack(expected), rtol=1e-6)


def test_worked_out_by_hand():
    # y = sum of ReLU(2 x - 1) over four pixels, x = 1, 0.75, 0.5 and 0: only the first two are on.
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(2)
        model[0].bias.fill_(-1)
        model[3].weight.fill_(1)
    image = torch.tensor([[[[1.0, 0.75], [0.5, 0.0]]]])
    # x * dx = 2, 1.5, 0, 0, scaled 1, 0.75, 0, 0; b * db = -1, -1, 0, 0, of magnitude 1, 1, 0, 0.
    result = explain(model, image, 0, method=full_grad)
    np.testing.assert_allclose(result.maps[0], [[2, 1.75], [0, 0]], atol=1e-6)


def test_a_batch_equals_its_images_and_nothing_is_left_behind():
    model, images = seeded(Staged), pictures(4, size=16)
    model.layer1.train()
    model.fc.weight.requires_grad_(False)
    whole = explain(model, images, [0, 1, 2, 3], method=full_grad)
    singles = [explain(model, image[None], i, method=full_grad).maps for i, image in enumerate(images)]
    np.testing.assert_allclose(whole.maps, np.concatenate(singles), rtol=1e-3, atol=1e-5)
    assert all(not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.layer1.training
    assert not model.layer2.training


def test_hooks_are_gone_after_an_exception_in_the_backward_pass():
    class Breaks(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, *gradients):
            raise ValueError("in the middle")

    class Broken(Piecewise):
        def forward(self, x):
            return super().forward(Breaks.apply(x))

    model = Broken()
    with pytest.raises(ValueError, match="in the middle"):
        explain(model, pictures(2), 1, method=full_grad)
    assert all(not module._forward_hooks for module in model.modules())
    assert model.training
