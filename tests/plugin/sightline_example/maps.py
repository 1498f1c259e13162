import torch

from sightline.attribution import AttributionContext


def fragile(context: AttributionContext, *, dim: float = 0.9) -> torch.Tensor:
    """Where the layer is active, times what the score loses when the image is dimmed."""
    drop = context.score(context.images) - context.score(dim * context.images)  # (B,)
    return drop[:, None, None] * context.activations.mean(1)  # (B, h, w)


def positive_cam(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Grad-CAM of the positive gradients alone."""
    weights = gradients.clamp(min=0).mean((2, 3), keepdim=True)  # (B, K, 1, 1)
    return (weights * activations).sum(1)  # (B, h, w)
