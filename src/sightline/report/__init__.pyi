from .html import render_page as render_page
from .html import write_report as write_report
from .intervals import wilson_interval as wilson_interval
from .load import ReportData as ReportData
from .load import load_report_data as load_report_data

__all__ = ["ReportData", "load_report_data", "render_page", "wilson_interval", "write_report"]
