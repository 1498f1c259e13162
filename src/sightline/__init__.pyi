from .attribution import METHODS as METHODS
from .attribution import Explanation as Explanation
from .attribution import class_maps as class_maps
from .attribution import explain as explain
from .attribution import explain_difference as explain_difference
from .attribution import preflight as preflight
from .audit import Audit as Audit
from .audit import make_audit as make_audit
from .data import Augmentation as Augmentation
from .data import Dataset as Dataset
from .data import Split as Split
from .data import load_data as load_data
from .data import plant as plant
from .errors import SightlineError as SightlineError
from .faithfulness import compare_methods as compare_methods
from .models import MODELS as MODELS
from .models import adopt as adopt
from .models import adopt_timm as adopt_timm
from .models import create_model as create_model
from .models import summarize as summarize
from .models import to_float as to_float
from .predictions import Predictions as Predictions
from .predictions import predict as predict
from .predictions import rank_mistakes as rank_mistakes
from .report import plot_class_accuracy as plot_class_accuracy
from .report import plot_confusion as plot_confusion
from .report import plot_curves as plot_curves
from .report import plot_explanations as plot_explanations
from .report import plot_images as plot_images
from .report import plot_learning_rate as plot_learning_rate
from .report import plot_mistakes as plot_mistakes
from .report import plot_range_test as plot_range_test
from .report import write_report as write_report
from .runs import Run as Run
from .runs import audit_run as audit_run
from .runs import check as check
from .runs import compare_runs as compare_runs
from .runs import inspect as inspect
from .runs import load_run as load_run
from .runs import run as run
from .training import OPTIMIZERS as OPTIMIZERS
from .training import RECIPES as RECIPES
from .training import SCHEDULES as SCHEDULES
from .training import Callback as Callback
from .training import History as History
from .training import find_learning_rate as find_learning_rate
from .training import fit as fit
from .training import load_recipe as load_recipe
from .training import probe as probe

__version__: str

__all__ = [
    "METHODS",
    "MODELS",
    "OPTIMIZERS",
    "RECIPES",
    "SCHEDULES",
    "Audit",
    "Augmentation",
    "Callback",
    "Dataset",
    "Explanation",
    "History",
    "Predictions",
    "Run",
    "SightlineError",
    "Split",
    "adopt",
    "adopt_timm",
    "audit_run",
    "check",
    "class_maps",
    "compare_methods",
    "compare_runs",
    "create_model",
    "explain",
    "explain_difference",
    "find_learning_rate",
    "fit",
    "inspect",
    "load_data",
    "load_recipe",
    "load_run",
    "make_audit",
    "plant",
    "plot_class_accuracy",
    "plot_confusion",
    "plot_curves",
    "plot_explanations",
    "plot_images",
    "plot_learning_rate",
    "plot_mistakes",
    "plot_range_test",
    "predict",
    "preflight",
    "probe",
    "rank_mistakes",
    "run",
    "summarize",
    "to_float",
    "write_report",
]
