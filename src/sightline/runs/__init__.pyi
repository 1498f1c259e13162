from .audit_stage import audit_run as audit_run
from .audit_stage import out_of_fold as out_of_fold
from .compare import compare_runs as compare_runs
from .existing_model import inspect as inspect
from .explain_files import explain_pictures as explain_pictures
from .find_lr import apply_lr as apply_lr
from .find_lr import describe_range_test as describe_range_test
from .find_lr import range_test as range_test
from .find_lr import recipe_file as recipe_file
from .folders import existing_folder as existing_folder
from .folders import list_runs as list_runs
from .pipeline import analyze as analyze
from .pipeline import finish_run as finish_run
from .pipeline import report_run as report_run
from .pipeline import run as run
from .pipeline import start_run as start_run
from .pipeline import train as train
from .rule_check import check as check
from .run_folder import Run as Run
from .run_folder import load_run as load_run
from .run_folder import new_folder as new_folder
from .run_folder import recipe_data as recipe_data
from .run_folder import summarize_run as summarize_run

__all__ = [
    "Run",
    "analyze",
    "apply_lr",
    "audit_run",
    "check",
    "describe_range_test",
    "existing_folder",
    "explain_pictures",
    "finish_run",
    "inspect",
    "list_runs",
    "load_run",
    "new_folder",
    "out_of_fold",
    "range_test",
    "recipe_data",
    "recipe_file",
    "report_run",
    "run",
    "start_run",
    "summarize_run",
    "train",
]
