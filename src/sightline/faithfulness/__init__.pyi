from .compare import MEASURES as MEASURES
from .compare import compare_methods as compare_methods
from .comparison import Comparison as Comparison
from .controls import CONTROLS as CONTROLS
from .controls import control_maps as control_maps
from .controls import edge_map as edge_map
from .controls import gaussian_map as gaussian_map
from .controls import random_map as random_map
from .fills import blur as blur
from .fills import mean as mean
from .fills import noisy_linear_imputation as noisy_linear_imputation
from .fills import zero as zero
from .grids import difull as difull
from .grids import grid_pointing_game as grid_pointing_game
from .grids import image_grids as image_grids
from .localization import energy_in_mask as energy_in_mask
from .localization import heat_in_masks as heat_in_masks
from .localization import pointing_game as pointing_game
from .measurement import Measurement as Measurement
from .measurement import bootstrap_interval as bootstrap_interval
from .perturbation import average_drop as average_drop
from .perturbation import average_increase as average_increase
from .perturbation import infidelity as infidelity
from .randomize import randomization as randomization
from .randomize import untrained_twin as untrained_twin
from .removal import deletion as deletion
from .removal import insertion as insertion
from .removal import road as road
from .removal import road_least_first as road_least_first
from .removal import road_most_first as road_most_first
from .scores import class_logit as class_logit
from .scores import class_probability as class_probability
from .similarity import spearman as spearman
from .similarity import ssim as ssim
from .stability import sensitivity as sensitivity
from .verdicts import judge as judge

__all__ = [
    "CONTROLS",
    "MEASURES",
    "Comparison",
    "Measurement",
    "average_drop",
    "average_increase",
    "blur",
    "bootstrap_interval",
    "class_logit",
    "class_probability",
    "compare_methods",
    "control_maps",
    "deletion",
    "difull",
    "edge_map",
    "energy_in_mask",
    "gaussian_map",
    "grid_pointing_game",
    "heat_in_masks",
    "image_grids",
    "infidelity",
    "insertion",
    "judge",
    "mean",
    "noisy_linear_imputation",
    "pointing_game",
    "random_map",
    "randomization",
    "road",
    "road_least_first",
    "road_most_first",
    "sensitivity",
    "spearman",
    "ssim",
    "untrained_twin",
    "zero",
]
