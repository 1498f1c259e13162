"""Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks", arXiv:1610.02391).

With A the K feature maps of a layer, each of N = h * w cells, and y_c the logit of class c:

    alpha_k = 1/N sum_ij  d y_c / d A_kij                  (eq. 1)
    L_ij    = ReLU( sum_k alpha_k A_kij )                  (eq. 2)

    >>> activations = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    >>> gradients = torch.tensor([[[[1.0, 3.0]], [[-1.0, 0.0]]]])
    >>> grad_cam(activations, gradients)  # 2 * [1, 2] - 0.5 * [3, 0]
    tensor([[[0.5000, 4.0000]]])

One deviation: the ReLU of eq. 2 is left to display, so that evidence against the class is
kept and "no positive evidence" can be told from a faint map.
"""

from __future__ import annotations

import torch


def grad_cam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Return the signed map sum_k alpha_k A_k: (B, K, h, w) and (B, K, h, w) to (B, h, w).

    activations: A, the output of the layer. gradients: of the logit with respect to A.
    """
    weights = gradients.mean(dim=(2, 3))  # (B, K)
    return torch.einsum("bk,bkhw->bhw", weights, activations)
