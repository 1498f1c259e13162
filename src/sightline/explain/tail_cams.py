"""Class-activation maps that ask what follows the layer for more than a gradient.

CAM          sum_k w_ck A_k, w the weights of the linear head
             Zhou et al. 2016, arXiv:1512.04150, eq. 2
ShapleyCAM   sum_k mean(g_k - (H A)_k / 2) A_k, H the Hessian of the logit with respect to A
             Cai 2025, "CAMs as Shapley Value-based Explainers", arXiv:2501.06261
Finer-CAM    Grad-CAM of y_c - gamma * mean of the logits of similar classes
             Zhang et al. 2025, arXiv:2501.11309
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sightline.errors import SightlineError
from sightline.explain.cams import grad_cam
from sightline.explain.case import Case
from sightline.explain.layer_choice import head_layer


def cam(case: Case) -> torch.Tensor:
    """Return sum_k w_ck A_k, (B, h, w), signed (Zhou 2016, eq. 2): no gradient is computed.

    The mean over the cells is the target's logit less its bias. The layer, where none is asked for,
    is the one that the head pools.

    Raises SightlineError if the logits are not a matrix times the pooled layer.
    """
    if case.asked is None:
        case.settle(head_layer(case.subject, case.images) or case.layer)
    head = case.head
    if head is None:
        right = head_layer(case.subject, case.images)
        mend = f"use layer {right!r}, which is pooled" if right else "use hires_cam or grad_cam"
        raise SightlineError(
            f"cam needs global average pooling and a linear head right after the layer, and {case.layer!r} "
            f"is not followed by these alone; {mend}"
        )
    return torch.einsum("bk,bk...->b...", head.weight[case.targets].to(case.activations), case.activations)


def shapley_cam(case: Case) -> torch.Tensor:
    """Return sum_k mean(g_k - (H A)_k / 2) A_k, (B, h, w), signed (Cai 2025).

    One pass more than Grad-CAM, back through the gradient; equal to it where the logit is linear in A.
    """
    activations, gradients = case.record()
    return grad_cam(activations, gradients - case.curvature() / 2)


def finer_cam(case: Case, *, gamma: float = 0.6, similar: int = 3) -> torch.Tensor:
    """Return the Grad-CAM of y_c - gamma * mean_d y_d, (B, h, w), signed (Zhang 2025).

    similar: how many classes d to compare with, those whose logits lie nearest to the target's.

    Raises SightlineError if the model has a single class.
    """
    logits, targets = case.logits, case.targets[:, None]
    others = min(similar, logits.shape[1] - 1)
    if others < 1:
        raise SightlineError("finer_cam compares classes, and the model has a single one; use grad_cam")
    distance = (logits - logits.gather(1, targets)).abs().scatter(1, targets, torch.inf)  # (B, C)
    nearest = distance.topk(others, dim=1, largest=False).indices  # (B, similar)
    weights = F.one_hot(targets[:, 0], logits.shape[1]).to(logits)
    weights.scatter_(1, nearest, -gamma / others)
    return grad_cam(case.activations, case.slopes(weights))
