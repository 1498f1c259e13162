from .blocks import Column as Column
from .blocks import Heading as Heading
from .blocks import Note as Note
from .blocks import Section as Section
from .blocks import Table as Table
from .check_tables import check_junit as check_junit
from .check_tables import check_markdown as check_markdown
from .comparison import Rows as Rows
from .comparison import render_comparison as render_comparison
from .comparison import write_comparison as write_comparison
from .page import render_page as render_page
from .page import write_report as write_report
from .plots import Plot as Plot
from .plots import plot_class_accuracy as plot_class_accuracy
from .plots import plot_confusion as plot_confusion
from .plots import plot_curves as plot_curves
from .plots import plot_explanations as plot_explanations
from .plots import plot_images as plot_images
from .plots import plot_learning_rate as plot_learning_rate
from .plots import plot_mistakes as plot_mistakes
from .plots import plot_range_test as plot_range_test
from .plots import write_range_test as write_range_test
from .plots import write_sample_sheet as write_sample_sheet
from .run_data import RunData as RunData
from .run_data import read_run as read_run

__all__ = [
    "Column",
    "Heading",
    "Note",
    "Plot",
    "Rows",
    "RunData",
    "Section",
    "Table",
    "check_junit",
    "check_markdown",
    "plot_class_accuracy",
    "plot_confusion",
    "plot_curves",
    "plot_explanations",
    "plot_images",
    "plot_learning_rate",
    "plot_mistakes",
    "plot_range_test",
    "read_run",
    "render_comparison",
    "render_page",
    "write_comparison",
    "write_range_test",
    "write_report",
    "write_sample_sheet",
]
