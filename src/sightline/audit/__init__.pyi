from .attributes import image_attributes as image_attributes
from .calibration import calibration_error as calibration_error
from .calibration import cross_fit_temperature as cross_fit_temperature
from .calibration import fit_temperature as fit_temperature
from .conformal import check_conformal as check_conformal
from .curation import Decision as Decision
from .curation import Decisions as Decisions
from .curation import apply_decisions as apply_decisions
from .curation import merge_decisions as merge_decisions
from .curation import read_decisions as read_decisions
from .curation import write_decisions as write_decisions
from .duplicates.pairs import find_near_duplicates as find_near_duplicates
from .ground_truth import check_planted as check_planted
from .inputs import Evidence as Evidence
from .label_issues import find_label_issues as find_label_issues
from .label_noise import LinearWitness as LinearWitness
from .label_noise import judge_labels as judge_labels
from .label_noise import measure_noise as measure_noise
from .model_comparison import Comparison as Comparison
from .model_comparison import compare_predictions as compare_predictions
from .neighbors import nearest_neighbors as nearest_neighbors
from .pipeline import make_audit as make_audit
from .record import Audit as Audit
from .record import read_audit as read_audit
from .record import write_audit as write_audit
from .result import AuditResult as AuditResult
from .robustness import measure_robustness as measure_robustness
from .rules import CheckedRule as CheckedRule
from .rules import CheckResult as CheckResult
from .selective import choose_threshold as choose_threshold
from .selective import risk_coverage as risk_coverage
from .slices import find_slices as find_slices

__all__ = [
    "Audit",
    "AuditResult",
    "CheckResult",
    "CheckedRule",
    "Comparison",
    "Decision",
    "Decisions",
    "Evidence",
    "LinearWitness",
    "apply_decisions",
    "calibration_error",
    "check_conformal",
    "check_planted",
    "choose_threshold",
    "compare_predictions",
    "cross_fit_temperature",
    "find_label_issues",
    "find_near_duplicates",
    "find_slices",
    "fit_temperature",
    "image_attributes",
    "judge_labels",
    "make_audit",
    "measure_noise",
    "measure_robustness",
    "merge_decisions",
    "nearest_neighbors",
    "read_audit",
    "read_decisions",
    "risk_coverage",
    "write_audit",
    "write_decisions",
]
