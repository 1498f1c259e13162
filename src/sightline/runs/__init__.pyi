from .folder import existing_folder as existing_folder
from .folder import list_runs as list_runs
from .folder import new_folder as new_folder
from .folder import summarize_run as summarize_run
from .job import Printer as Printer
from .job import Reporter as Reporter
from .job import analyze as analyze
from .job import describe_range_test as describe_range_test
from .job import finish_run as finish_run
from .job import range_test as range_test
from .job import run as run
from .job import start_run as start_run
from .job import train as train
from .pictures import explain_pictures as explain_pictures
from .record import Run as Run
from .record import load_run as load_run
from .record import recipe_data as recipe_data

__all__ = [
    "Printer",
    "Reporter",
    "Run",
    "analyze",
    "describe_range_test",
    "existing_folder",
    "explain_pictures",
    "finish_run",
    "list_runs",
    "load_run",
    "new_folder",
    "range_test",
    "recipe_data",
    "run",
    "start_run",
    "summarize_run",
    "train",
]
