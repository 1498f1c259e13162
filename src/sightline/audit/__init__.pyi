from .ambiguity import Difficulty as Difficulty
from .ambiguity import sort_by_difficulty as sort_by_difficulty
from .ambiguity import view_spread as view_spread
from .calibration import CalibrationFloor as CalibrationFloor
from .calibration import CrossFit as CrossFit
from .calibration import calibration_error as calibration_error
from .calibration import calibration_floor as calibration_floor
from .calibration import cross_fit_temperature as cross_fit_temperature
from .calibration import equal_mass as equal_mass
from .calibration import equal_width as equal_width
from .calibration import fit_temperature as fit_temperature
from .calibration import reliability as reliability
from .conformal import ConformalCheck as ConformalCheck
from .conformal import check_conformal as check_conformal
from .conformal import conformal_sets as conformal_sets
from .conformal import conformal_threshold as conformal_threshold
from .confusion import confusion_pairs as confusion_pairs
from .confusion import frequent_pairs as frequent_pairs
from .curation import Decision as Decision
from .curation import Decisions as Decisions
from .curation import apply_decisions as apply_decisions
from .curation import read_decisions as read_decisions
from .curation import write_decisions as write_decisions
from .duplicates.pairs import AccuracyWithout as AccuracyWithout
from .duplicates.pairs import Duplicates as Duplicates
from .duplicates.pairs import accuracy_without as accuracy_without
from .duplicates.pairs import near_duplicates as near_duplicates
from .error_budget import CAUSES as CAUSES
from .error_budget import ErrorBudget as ErrorBudget
from .error_budget import error_budget as error_budget
from .facts import Audit as Audit
from .facts import read_audit as read_audit
from .facts import write_audit as write_audit
from .fixes import Fix as Fix
from .fixes import Gain as Gain
from .fixes import collect_for_pair as collect_for_pair
from .fixes import collect_for_slice as collect_for_slice
from .fixes import drop_copies as drop_copies
from .fixes import drop_twins as drop_twins
from .fixes import rank_fixes as rank_fixes
from .fixes import relabel_test as relabel_test
from .fixes import relabel_train as relabel_train
from .fixes import use_temperature as use_temperature
from .fixes import use_threshold as use_threshold
from .ground_truth import average_precision as average_precision
from .ground_truth import check_planted as check_planted
from .image_attributes import CELLS as CELLS
from .image_attributes import evidence_attributes as evidence_attributes
from .image_attributes import image_attributes as image_attributes
from .inputs import Evidence as Evidence
from .label_issues import Agreement as Agreement
from .label_issues import ListQuality as ListQuality
from .label_issues import confident_joint as confident_joint
from .label_issues import confident_thresholds as confident_thresholds
from .label_issues import label_suspects as label_suspects
from .label_issues import noise_rate_pruning as noise_rate_pruning
from .label_issues import normalized_margin as normalized_margin
from .label_issues import off_diagonal as off_diagonal
from .label_issues import precision_recall as precision_recall
from .label_issues import self_confidence as self_confidence
from .label_issues import suspect_agreement as suspect_agreement
from .label_issues import suspects_from_dynamics as suspects_from_dynamics
from .model_comparison import Comparison as Comparison
from .model_comparison import compare_predictions as compare_predictions
from .neighbors import Neighbors as Neighbors
from .neighbors import nearest_neighbors as nearest_neighbors
from .neighbors import neighbour_evidence as neighbour_evidence
from .pipeline import make_audit as make_audit
from .robustness import Robustness as Robustness
from .robustness import robustness_table as robustness_table
from .selective import Rejection as Rejection
from .selective import augrc as augrc
from .selective import aurc as aurc
from .selective import choose_threshold as choose_threshold
from .selective import risk_coverage as risk_coverage
from .slices import Condition as Condition
from .slices import Slice as Slice
from .slices import attribute_conditions as attribute_conditions
from .slices import class_conditions as class_conditions
from .slices import cluster_conditions as cluster_conditions
from .slices import find_slices as find_slices
from .training_dynamics import area_under_margin as area_under_margin
from .training_dynamics import cartography as cartography
from .training_dynamics import forgetting_events as forgetting_events
from .training_dynamics import rank_by_dynamics as rank_by_dynamics

__all__ = [
    "CAUSES",
    "CELLS",
    "AccuracyWithout",
    "Agreement",
    "Audit",
    "CalibrationFloor",
    "Comparison",
    "Condition",
    "ConformalCheck",
    "CrossFit",
    "Decision",
    "Decisions",
    "Difficulty",
    "Duplicates",
    "ErrorBudget",
    "Evidence",
    "Fix",
    "Gain",
    "ListQuality",
    "Neighbors",
    "Rejection",
    "Robustness",
    "Slice",
    "accuracy_without",
    "apply_decisions",
    "area_under_margin",
    "attribute_conditions",
    "augrc",
    "aurc",
    "average_precision",
    "calibration_error",
    "calibration_floor",
    "cartography",
    "check_conformal",
    "check_planted",
    "choose_threshold",
    "class_conditions",
    "cluster_conditions",
    "collect_for_pair",
    "collect_for_slice",
    "compare_predictions",
    "confident_joint",
    "confident_thresholds",
    "conformal_sets",
    "conformal_threshold",
    "confusion_pairs",
    "cross_fit_temperature",
    "drop_copies",
    "drop_twins",
    "equal_mass",
    "equal_width",
    "error_budget",
    "evidence_attributes",
    "find_slices",
    "fit_temperature",
    "forgetting_events",
    "frequent_pairs",
    "image_attributes",
    "label_suspects",
    "make_audit",
    "near_duplicates",
    "nearest_neighbors",
    "neighbour_evidence",
    "noise_rate_pruning",
    "normalized_margin",
    "off_diagonal",
    "precision_recall",
    "rank_by_dynamics",
    "rank_fixes",
    "read_audit",
    "read_decisions",
    "relabel_test",
    "relabel_train",
    "reliability",
    "risk_coverage",
    "robustness_table",
    "self_confidence",
    "sort_by_difficulty",
    "suspect_agreement",
    "suspects_from_dynamics",
    "use_temperature",
    "use_threshold",
    "view_spread",
    "write_audit",
    "write_decisions",
]
