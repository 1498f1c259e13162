from .features import predict_features as predict_features
from .inference import TTA as TTA
from .inference import CorruptedPredictions as CorruptedPredictions
from .inference import TtaPredictions as TtaPredictions
from .inference import predict as predict
from .inference import predict_corrupted as predict_corrupted
from .inference import predict_tta as predict_tta
from .metrics import METRICS as METRICS
from .metrics import accuracy as accuracy
from .metrics import accuracy_per_class as accuracy_per_class
from .metrics import confused_pairs as confused_pairs
from .metrics import confusion as confusion
from .metrics import measure as measure
from .metrics import pair_counts as pair_counts
from .metrics import rank_mistakes as rank_mistakes
from .scores import Change as Change
from .scores import ClassScores as ClassScores
from .scores import Score as Score
from .scores import Scores as Scores
from .scores import compare_scores as compare_scores
from .scores import score_predictions as score_predictions
from .table import Predictions as Predictions
from .table import read_predictions as read_predictions
from .table import write_predictions as write_predictions
from .training_dynamics import Dynamics as Dynamics
from .training_dynamics import load_dynamics as load_dynamics
from .training_dynamics import save_dynamics as save_dynamics

__all__ = [
    "METRICS",
    "TTA",
    "Change",
    "ClassScores",
    "CorruptedPredictions",
    "Dynamics",
    "Predictions",
    "Score",
    "Scores",
    "TtaPredictions",
    "accuracy",
    "accuracy_per_class",
    "compare_scores",
    "confused_pairs",
    "confusion",
    "load_dynamics",
    "measure",
    "pair_counts",
    "predict",
    "predict_corrupted",
    "predict_features",
    "predict_tta",
    "rank_mistakes",
    "read_predictions",
    "save_dynamics",
    "score_predictions",
    "write_predictions",
]
