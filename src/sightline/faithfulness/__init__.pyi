from .baselines import BASELINES as BASELINES
from .baselines import baseline_maps as baseline_maps
from .baselines import edge_map as edge_map
from .baselines import gaussian_map as gaussian_map
from .baselines import random_map as random_map
from .comparison import MEASURES as MEASURES
from .comparison import MethodComparison as MethodComparison
from .comparison import compare_methods as compare_methods
from .deletion_insertion import deletion as deletion
from .deletion_insertion import insertion as insertion
from .deletion_insertion import road as road
from .deletion_insertion import road_least_first as road_least_first
from .deletion_insertion import road_most_first as road_most_first
from .imputation import blur as blur
from .imputation import mean as mean
from .imputation import noisy_linear_imputation as noisy_linear_imputation
from .imputation import zero as zero
from .localization import difull as difull
from .localization import energy_in_mask as energy_in_mask
from .localization import grid_pointing_game as grid_pointing_game
from .localization import heat_in_masks as heat_in_masks
from .localization import image_grids as image_grids
from .localization import pointing_game as pointing_game
from .masking import average_drop as average_drop
from .masking import average_increase as average_increase
from .masking import infidelity as infidelity
from .measurement import Measurement as Measurement
from .measurement import class_logit as class_logit
from .measurement import class_probability as class_probability
from .sanity_checks import randomization as randomization
from .sanity_checks import sensitivity as sensitivity
from .sanity_checks import spearman as spearman
from .sanity_checks import ssim as ssim
from .sanity_checks import untrained_copy as untrained_copy
from .verdict import compare_with_baselines as compare_with_baselines

__all__ = [
    "BASELINES",
    "MEASURES",
    "Measurement",
    "MethodComparison",
    "average_drop",
    "average_increase",
    "baseline_maps",
    "blur",
    "class_logit",
    "class_probability",
    "compare_methods",
    "compare_with_baselines",
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
    "untrained_copy",
    "zero",
]
