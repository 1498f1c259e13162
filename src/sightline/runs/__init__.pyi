from .auditing import audit as audit
from .comparing import compare_runs as compare_runs
from .folder import existing_folder as existing_folder
from .folder import list_runs as list_runs
from .folder import new_folder as new_folder
from .folder import summarize_run as summarize_run
from .folds import out_of_fold as out_of_fold
from .job import analyze as analyze
from .job import finish_run as finish_run
from .job import run as run
from .job import start_run as start_run
from .job import train as train
from .pictures import explain_pictures as explain_pictures
from .rates import apply_rate as apply_rate
from .rates import describe_range_test as describe_range_test
from .rates import range_test as range_test
from .rates import recipe_file as recipe_file
from .record import Run as Run
from .record import load_run as load_run
from .record import recipe_data as recipe_data
from .reporting import Printer as Printer
from .reporting import Reporter as Reporter

__all__ = [
    "Printer",
    "Reporter",
    "Run",
    "analyze",
    "apply_rate",
    "audit",
    "describe_range_test",
    "existing_folder",
    "explain_pictures",
    "finish_run",
    "list_runs",
    "load_run",
    "new_folder",
    "out_of_fold",
    "range_test",
    "recipe_data",
    "recipe_file",
    "run",
    "start_run",
    "summarize_run",
    "train",
]
