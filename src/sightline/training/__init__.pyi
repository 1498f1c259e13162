from .callbacks import CALLBACKS as CALLBACKS
from .callbacks import EMA as EMA
from .callbacks import WEIGHT_AVERAGES as WEIGHT_AVERAGES
from .callbacks import Callback as Callback
from .callbacks import EarlyStopping as EarlyStopping
from .callbacks import FineTune as FineTune
from .callbacks import Freeze as Freeze
from .callbacks import KeepBest as KeepBest
from .callbacks import LogEpochs as LogEpochs
from .callbacks import Lookahead as Lookahead
from .checkpoint import Checkpoint as Checkpoint
from .execution import Execution as Execution
from .execution import measure_execution as measure_execution
from .history import History as History
from .history import describe_epoch as describe_epoch
from .linear_probe import Probe as Probe
from .linear_probe import fold_probabilities as fold_probabilities
from .linear_probe import probe as probe
from .lr_finder import find_learning_rate as find_learning_rate
from .lr_range_test import LR_RULES as LR_RULES
from .lr_range_test import RangeTest as RangeTest
from .optimizers import OPTIMIZERS as OPTIMIZERS
from .optimizers import adam as adam
from .optimizers import adamw as adamw
from .optimizers import muon as muon
from .optimizers import sgd as sgd
from .recipe import Recipe as Recipe
from .recipe_io import RECIPES as RECIPES
from .recipe_io import Figures as Figures
from .recipe_io import load_figures as load_figures
from .recipe_io import load_recipe as load_recipe
from .recipe_io import recipe_toml as recipe_toml
from .schedules import SCHEDULES as SCHEDULES
from .schedules import Progress as Progress
from .schedules import constant as constant
from .schedules import cosine as cosine
from .schedules import cycled_momentum as cycled_momentum
from .schedules import multistep as multistep
from .schedules import one_cycle as one_cycle
from .schedules import plateau as plateau
from .schedules import step as step
from .schedules import triangle as triangle
from .train_step import MIXES as MIXES
from .train_step import Objective as Objective
from .train_step import cutmix as cutmix
from .train_step import mixup as mixup
from .trainer import Trainer as Trainer
from .trainer import fit as fit

__all__ = [
    "CALLBACKS",
    "EMA",
    "LR_RULES",
    "MIXES",
    "OPTIMIZERS",
    "RECIPES",
    "SCHEDULES",
    "WEIGHT_AVERAGES",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "Execution",
    "Figures",
    "FineTune",
    "Freeze",
    "History",
    "KeepBest",
    "LogEpochs",
    "Lookahead",
    "Objective",
    "Probe",
    "Progress",
    "RangeTest",
    "Recipe",
    "Trainer",
    "adam",
    "adamw",
    "constant",
    "cosine",
    "cutmix",
    "cycled_momentum",
    "describe_epoch",
    "find_learning_rate",
    "fit",
    "load_figures",
    "load_recipe",
    "measure_execution",
    "mixup",
    "multistep",
    "muon",
    "one_cycle",
    "plateau",
    "probe",
    "recipe_toml",
    "sgd",
    "step",
    "triangle",
]
