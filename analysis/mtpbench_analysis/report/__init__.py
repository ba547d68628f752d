"""The files beside a sweep's results: the comparison as text and data, and a page that opens offline."""

from mtpbench_analysis.report.files import FolderComparison, compare_folder, write_report
from mtpbench_analysis.report.overview import Alone
from mtpbench_analysis.report.page import render_page
from mtpbench_analysis.report.provenance import describe_provenance

__all__ = [
    "Alone",
    "FolderComparison",
    "compare_folder",
    "describe_provenance",
    "render_page",
    "write_report",
]
