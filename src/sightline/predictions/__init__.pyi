from .inference import predict as predict
from .metrics import accuracy as accuracy
from .metrics import accuracy_per_class as accuracy_per_class
from .metrics import confused_pairs as confused_pairs
from .metrics import confusion as confusion
from .ranking import rank_mistakes as rank_mistakes
from .table import Predictions as Predictions
from .table import read_predictions as read_predictions
from .table import write_predictions as write_predictions

__all__ = [
    "Predictions",
    "accuracy",
    "accuracy_per_class",
    "confused_pairs",
    "confusion",
    "predict",
    "rank_mistakes",
    "read_predictions",
    "write_predictions",
]
