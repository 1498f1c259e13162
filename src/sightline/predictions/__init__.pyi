from .dynamics import Dynamics as Dynamics
from .dynamics import load_dynamics as load_dynamics
from .dynamics import save_dynamics as save_dynamics
from .features import predict_features as predict_features
from .inference import predict as predict
from .inference import predict_views as predict_views
from .intervals import wilson_interval as wilson_interval
from .intervals import wilson_intervals as wilson_intervals
from .metrics import accuracy as accuracy
from .metrics import accuracy_per_class as accuracy_per_class
from .metrics import confused_pairs as confused_pairs
from .metrics import confusion as confusion
from .metrics import pair_counts as pair_counts
from .ranking import rank_mistakes as rank_mistakes
from .robustness import CorruptedPredictions as CorruptedPredictions
from .robustness import predict_corrupted as predict_corrupted
from .table import Predictions as Predictions
from .table import read_predictions as read_predictions
from .table import write_predictions as write_predictions
from .views import VIEWS as VIEWS
from .views import ViewPredictions as ViewPredictions

__all__ = [
    "VIEWS",
    "CorruptedPredictions",
    "Dynamics",
    "Predictions",
    "ViewPredictions",
    "accuracy",
    "accuracy_per_class",
    "confused_pairs",
    "confusion",
    "load_dynamics",
    "pair_counts",
    "predict",
    "predict_corrupted",
    "predict_features",
    "predict_views",
    "rank_mistakes",
    "read_predictions",
    "save_dynamics",
    "wilson_interval",
    "wilson_intervals",
    "write_predictions",
]
