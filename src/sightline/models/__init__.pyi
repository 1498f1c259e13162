from .execution import autocast as autocast
from .execution import choose_device as choose_device
from .execution import choose_memory_format as choose_memory_format
from .execution import choose_precision as choose_precision
from .execution import device_of as device_of
from .execution import evaluating as evaluating
from .execution import keep_freed_memory as keep_freed_memory
from .execution import to_float as to_float
from .layers import find_layer as find_layer
from .normalize import Normalize as Normalize
from .registry import MODELS as MODELS
from .registry import create_model as create_model
from .registry import load_model as load_model
from .registry import save_model as save_model
from .registry import summarize as summarize

__all__ = [
    "MODELS",
    "Normalize",
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
    "save_model",
    "summarize",
    "to_float",
]
