from .averaging import AVERAGES as AVERAGES
from .averaging import ema as ema
from .averaging import lookahead as lookahead
from .checkpoint import load_checkpoint as load_checkpoint
from .checkpoint import save_checkpoint as save_checkpoint
from .history import History as History
from .history import describe_epoch as describe_epoch
from .lr_finder import find_learning_rate as find_learning_rate
from .measuring import Execution as Execution
from .measuring import measure_execution as measure_execution
from .mixing import MIXES as MIXES
from .mixing import cutmix as cutmix
from .mixing import mixup as mixup
from .optimizer import OPTIMIZERS as OPTIMIZERS
from .optimizer import adam as adam
from .optimizer import adamw as adamw
from .optimizer import muon as muon
from .optimizer import sgd as sgd
from .range_test import RangeTest as RangeTest
from .rate_rules import RATE_RULES as RATE_RULES
from .recipe import Recipe as Recipe
from .recipe_files import RECIPES as RECIPES
from .recipe_files import load_recipe as load_recipe
from .recipe_files import recipe_toml as recipe_toml
from .schedule import SCHEDULES as SCHEDULES
from .schedule import Progress as Progress
from .schedule import constant as constant
from .schedule import cosine as cosine
from .schedule import cycled_momentum as cycled_momentum
from .schedule import multistep as multistep
from .schedule import one_cycle as one_cycle
from .schedule import plateau as plateau
from .schedule import step as step
from .schedule import triangle as triangle
from .train import fit as fit

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
