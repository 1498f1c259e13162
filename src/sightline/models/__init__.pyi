from .adopted import Adopted as Adopted
from .adopted import adopt as adopt
from .adopted import adopt_timm as adopt_timm
from .backbones import Backbone as Backbone
from .backbones import InputSpec as InputSpec
from .device import autocast as autocast
from .device import choose_device as choose_device
from .device import choose_memory_format as choose_memory_format
from .device import choose_precision as choose_precision
from .device import device_of as device_of
from .device import evaluating as evaluating
from .device import keep_freed_memory as keep_freed_memory
from .device import to_float as to_float
from .layers import Normalize as Normalize
from .layers import find_layer as find_layer
from .registry import MODELS as MODELS
from .registry import create_model as create_model
from .registry import load_model as load_model
from .registry import save_model as save_model
from .registry import summarize as summarize
from .weights import load_weights as load_weights

__all__ = [
    "MODELS",
    "Adopted",
    "Backbone",
    "InputSpec",
    "Normalize",
    "adopt",
    "adopt_timm",
    "autocast",
    "choose_device",
    "choose_memory_format",
    "choose_precision",
    "create_model",
    "device_of",
    "evaluating",
    "find_layer",
    "keep_freed_memory",
    "load_model",
    "load_weights",
    "save_model",
    "summarize",
    "to_float",
]
