"""The files beside a sweep's results: the comparison as text and data, and a page that opens offline."""

from mtpbench_analysis.report.files import write_report
from mtpbench_analysis.report.overview import Alone
from mtpbench_analysis.report.page import render_page
from mtpbench_analysis.report.provenance import describe_provenance

__all__ = ["Alone", "describe_provenance", "render_page", "write_report"]
