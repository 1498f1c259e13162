from .attribution import explain as explain
from .attribution import explain_layers as explain_layers
from .cams import grad_cam as grad_cam
from .case import Case as Case
from .combine import COMBINATIONS as COMBINATIONS
from .contrast import Difference as Difference
from .contrast import class_maps as class_maps
from .contrast import explain_difference as explain_difference
from .display import colorize as colorize
from .display import heatmap as heatmap
from .display import overlay as overlay
from .explanation import Explanation as Explanation
from .inspection import Preflight as Preflight
from .inspection import preflight as preflight
from .layer_choice import target_layer as target_layer
from .methods import METHODS as METHODS
from .tokens import grid_of_tokens as grid_of_tokens

__all__ = [
    "COMBINATIONS",
    "METHODS",
    "Case",
    "Difference",
    "Explanation",
    "Preflight",
    "class_maps",
    "colorize",
    "explain",
    "explain_difference",
    "explain_layers",
    "grad_cam",
    "grid_of_tokens",
    "heatmap",
    "overlay",
    "preflight",
    "target_layer",
]
