"""Class-activation maps: weighted sums of a layer's feature maps.

With A the K feature maps of a layer, each of N = h * w cells, g = dy/dA the gradient of the target's
logit, and sums over cells where no index says otherwise. Functions of activations and gradients:

    Grad-CAM              sum_k mean(g_k) A_k                  Selvaraju 2017, arXiv:1610.02391, eq. 1, 2
    Grad-CAM++            sum_k sum(a_k ReLU(g_k)) A_k, a_k = g_k^2 / (2 g_k^2 + sum(A_k) g_k^3)
                                                               Chattopadhay 2018, arXiv:1710.11063, eq. 19
    XGrad-CAM             sum_k sum(g_k A_k) / sum(A_k) A_k    Fu 2020, arXiv:2008.02312, eq. 8
    HiRes-CAM             sum_k g_k A_k                        Draelos & Carin 2020, arXiv:2011.08891
    Element-wise Grad-CAM sum_k ReLU(g_k A_k)                  Pillai & Pirsiavash 2021, AAAI
    LayerCAM              sum_k ReLU(g_k) A_k                  Jiang 2021, IEEE TIP 30
    Eigen-CAM             first principal component of A       Muhammad & Yeasin 2020, arXiv:2008.00299
    Eigen-Grad-CAM        the same of g A

Functions of the context, which use more than one gradient of what follows the layer:

    CAM          sum_k w_ck A_k, w the weights of the linear head
                 Zhou et al. 2016, arXiv:1512.04150, eq. 2
    ShapleyCAM   sum_k mean(g_k - (H A)_k / 2) A_k, H the Hessian of the logit with respect to A
                 Cai 2025, "CAMs as Shapley Value-based Explainers", arXiv:2501.06261
    Finer-CAM    Grad-CAM of y_c - gamma * mean of the logits of similar classes
                 Zhang et al. 2025, arXiv:2501.11309

    >>> activations = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    >>> gradients = torch.tensor([[[[1.0, 3.0]], [[-1.0, 0.0]]]])
    >>> grad_cam(activations, gradients)  # 2 * [1, 2] - 0.5 * [3, 0]
    tensor([[[0.5000, 4.0000]]])
    >>> hires_cam(activations, gradients)  # [1, 6] + [-3, 0]
    tensor([[[-2.,  6.]]])

One deviation, in all: a final ReLU is left to display, so that evidence against the class is kept
and "no positive evidence" can be told from a faint map. Volumes (B, K, d, h, w) work alike.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sightline.attribution.context import AttributionContext
from sightline.attribution.layers import head_layer
from sightline.errors import InputError


def grad_cam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Return sum_k alpha_k A_k, alpha_k = mean(g_k), signed.

    Args:
        activations: A, the output of the layer, (B, K, h, w).
        gradients: g, of the target's logit with respect to A, (B, K, h, w).

    Returns:
        The maps, (B, h, w).
    """
    return _weighted(gradients.flatten(2).mean(2), activations)


def grad_cam_plus_plus(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Return sum_k w_k A_k, w_k of eq. 19, signed where A is: (B, K, h, w) twice to (B, h, w).

    Where g > 0, a g = g / (2 + sum(A) g): in this form the square of a small gradient, which an
    epsilon in the denominator would drown, is never made. Meant for A >= 0, after a ReLU; elsewhere
    the denominator can vanish, and such a map is not finite.
    """
    total = _over_cells(activations.flatten(2).sum(2), activations)  # (B, K, 1, 1)
    positive = gradients.clamp(min=0)
    return _weighted((positive / (2 + total * positive)).flatten(2).sum(2), activations)


def xgrad_cam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Return sum_k w_k A_k with w_k = sum(g_k A_k) / sum(A_k), signed: (B, K, h, w) twice to (B, h, w).

    Meant for A >= 0, after a ReLU. A channel of zeros adds nothing. Where a channel's values cancel
    to within rounding, its weight is undefined, and so is the map: NaN, whose status is "not finite".
    """
    flat = activations.flatten(2)  # (B, K, N)
    total, size = flat.sum(2), flat.abs().sum(2)
    weights = (gradients.flatten(2) * flat).sum(2) / total
    cancelled = total.abs() <= flat.shape[2] * torch.finfo(flat.dtype).eps * size
    weights = weights.masked_fill(cancelled, torch.nan).masked_fill(size == 0, 0)
    return _weighted(weights, activations)


def hires_cam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Return sum_k g_k A_k cell by cell, signed: (B, K, h, w) twice to (B, h, w).

    Behind global average pooling and a linear head, a map sums to the logit less its bias.
    """
    return (gradients * activations).sum(1)


def elementwise_grad_cam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Return sum_k ReLU(g_k A_k) cell by cell, never negative: (B, K, h, w) twice to (B, h, w)."""
    return (gradients * activations).clamp(min=0).sum(1)


def layer_cam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Return sum_k ReLU(g_k) A_k cell by cell, signed where A is: (B, K, h, w) twice to (B, h, w)."""
    return (gradients.clamp(min=0) * activations).sum(1)


def eigen_cam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Return the first principal component of the cells' activations: (B, K, h, w) twice to (B, h, w).

    It says what stands out, for whatever class: the gradients are not used. Deviations: the paper
    does not centre, and then the component is mostly the mean activation; and the sign, which a
    component does not have, is the one that goes along with the sum of the activations.
    """
    return _first_component(activations)


def eigen_grad_cam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Return the first principal component of g A: (B, K, h, w) twice to (B, h, w).

    As `eigen_cam`; the sign is the one that goes along with HiRes-CAM.
    """
    return _first_component(gradients * activations)


def _first_component(values: torch.Tensor) -> torch.Tensor:
    """Project the centred cells of (B, K, h, w) on their direction of largest variance: (B, h, w)."""
    cells = values.flatten(2)  # (B, K, N)
    cells = cells - cells.mean(2, keepdim=True)
    if cells.shape[1] < cells.shape[2]:
        direction = _top_vector(cells @ cells.mT)  # (B, K)
        component = torch.einsum("bk,bkn->bn", direction, cells)
    else:  # the Gram matrix of the cells has the same components, without a direction of K numbers
        direction = _top_vector(cells.mT @ cells)  # (B, N)
        component = direction * torch.linalg.vector_norm(cells @ direction[..., None], dim=1)
    along = (component * cells.sum(1)).sum(1)  # (B,)
    component = component * torch.where(along < 0, -1, 1)[:, None]
    return component.unflatten(1, values.shape[2:])


def _top_vector(matrices: torch.Tensor) -> torch.Tensor:
    """Return the unit eigenvector (B, n) of the largest eigenvalue of symmetric (B, n, n)."""
    finite = matrices.isfinite().all(2).all(1)[:, None, None]
    # eigh fails on the whole batch for one bad matrix, and does not exist on MPS.
    safe = matrices.masked_fill(~finite, 0)
    safe = safe.cpu() if safe.device.type == "mps" else safe
    vectors = torch.linalg.eigh(safe).eigenvectors[..., -1].to(matrices.device)
    return vectors.masked_fill(~finite[:, :, 0], torch.nan)


def _weighted(weights: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bk,bk...->b...", weights, activations)  # (B, K), (B, K, h, w) to (B, h, w)


def _over_cells(per_channel: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
    return per_channel.view(*per_channel.shape, *[1] * (activations.ndim - 2))


def cam(context: AttributionContext) -> torch.Tensor:
    """Return sum_k w_ck A_k, (B, h, w), signed (Zhou 2016, eq. 2): no gradient is computed.

    The mean over the cells is the target's logit less its bias. The layer, if none is requested,
    is the one that the head pools.

    Raises:
        InputError: The logits are not a matrix times the pooled layer.
    """
    if context.requested_layer is None:
        context.prefer_layer(head_layer(context.wrapped, context.images) or context.layer)
    head = context.head
    if head is None:
        right = head_layer(context.wrapped, context.images)
        advice = f"use layer {right!r}, which is pooled" if right else "use hires_cam or grad_cam"
        raise InputError(
            "cam needs global average pooling and a linear head right after the layer, and "
            f"{context.layer!r} is not followed by these alone; {advice}"
        )
    return torch.einsum(
        "bk,bk...->b...", head.weight[context.targets].to(context.activations), context.activations
    )


def shapley_cam(context: AttributionContext) -> torch.Tensor:
    """Return sum_k mean(g_k - (H A)_k / 2) A_k, (B, h, w), signed (Cai 2025).

    One pass more than Grad-CAM, back through the gradient; equal to it where the logit is linear in A.
    """
    activations, gradients = context.record()
    return grad_cam(activations, gradients - context.curvature() / 2)


def finer_cam(context: AttributionContext, *, gamma: float = 0.6, similar: int = 3) -> torch.Tensor:
    """Return the Grad-CAM of y_c - gamma * mean_d y_d, (B, h, w), signed (Zhang 2025).

    Args:
        context: Model, images and targets.
        gamma: How much of the similar classes is taken off.
        similar: How many classes d to compare with: those whose logits are nearest to the target's.

    Raises:
        InputError: The model has a single class.
    """
    logits, targets = context.logits, context.targets[:, None]
    others = min(similar, logits.shape[1] - 1)
    if others < 1:
        raise InputError("finer_cam compares classes, and the model has a single one; use grad_cam")
    distance = (logits - logits.gather(1, targets)).abs().scatter(1, targets, torch.inf)  # (B, C)
    nearest = distance.topk(others, dim=1, largest=False).indices  # (B, similar)
    weights = F.one_hot(targets[:, 0], logits.shape[1]).to(logits)
    weights.scatter_(1, nearest, -gamma / others)
    return grad_cam(context.activations, context.slopes(weights))
