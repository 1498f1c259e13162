from .callbacks import AVERAGES as AVERAGES
from .callbacks import MIXES as MIXES
from .callbacks import cutmix as cutmix
from .callbacks import ema as ema
from .callbacks import lookahead as lookahead
from .callbacks import mixup as mixup
from .execution import Execution as Execution
from .execution import measure_execution as measure_execution
from .history import History as History
from .history import describe_epoch as describe_epoch
from .lr_finder import find_learning_rate as find_learning_rate
from .lr_range_test import RATE_RULES as RATE_RULES
from .lr_range_test import RangeTest as RangeTest
from .optimizers import OPTIMIZERS as OPTIMIZERS
from .optimizers import adam as adam
from .optimizers import adamw as adamw
from .optimizers import muon as muon
from .optimizers import sgd as sgd
from .recipe import Recipe as Recipe
from .recipe_io import RECIPES as RECIPES
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
from .trainer import fit as fit
from .trainer import load_checkpoint as load_checkpoint
from .trainer import save_checkpoint as save_checkpoint

__all__ = [
    "AVERAGES",
    "MIXES",
    "OPTIMIZERS",
    "RATE_RULES",
    "RECIPES",
    "SCHEDULES",
    "Execution",
    "History",
    "Progress",
    "RangeTest",
    "Recipe",
    "adam",
    "adamw",
    "constant",
    "cosine",
    "cutmix",
    "cycled_momentum",
    "describe_epoch",
    "ema",
    "find_learning_rate",
    "fit",
    "load_checkpoint",
    "load_recipe",
    "lookahead",
    "measure_execution",
    "mixup",
    "multistep",
    "muon",
    "one_cycle",
    "plateau",
    "recipe_toml",
    "save_checkpoint",
    "sgd",
    "step",
    "triangle",
]
