from .checkpoint import load_checkpoint as load_checkpoint
from .checkpoint import save_checkpoint as save_checkpoint
from .history import History as History
from .history import describe_epoch as describe_epoch
from .lr_finder import RangeTest as RangeTest
from .lr_finder import find_learning_rate as find_learning_rate
from .optimizer import OPTIMIZERS as OPTIMIZERS
from .optimizer import adam as adam
from .optimizer import adamw as adamw
from .optimizer import sgd as sgd
from .recipe import RECIPES as RECIPES
from .recipe import Recipe as Recipe
from .recipe import load_recipe as load_recipe
from .recipe import recipe_toml as recipe_toml
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
    "OPTIMIZERS",
    "RECIPES",
    "SCHEDULES",
    "History",
    "Progress",
    "RangeTest",
    "Recipe",
    "adam",
    "adamw",
    "constant",
    "cosine",
    "cycled_momentum",
    "describe_epoch",
    "find_learning_rate",
    "fit",
    "load_checkpoint",
    "load_recipe",
    "multistep",
    "one_cycle",
    "plateau",
    "recipe_toml",
    "save_checkpoint",
    "sgd",
    "step",
    "triangle",
]
