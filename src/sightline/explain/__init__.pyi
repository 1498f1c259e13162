from .attribution import explain as explain
from .attribution import explain_layers as explain_layers
from .cams import grad_cam as grad_cam
from .display import colorize as colorize
from .display import heatmap as heatmap
from .display import overlay as overlay
from .explanation import Explanation as Explanation
from .layer_choice import target_layer as target_layer
from .methods import METHODS as METHODS

__all__ = [
    "METHODS",
    "Explanation",
    "colorize",
    "explain",
    "explain_layers",
    "grad_cam",
    "heatmap",
    "overlay",
    "target_layer",
]
