"""The files beside a sweep's results: the comparison as text and data, and a page that opens offline."""

from mtpbench_analysis.report.files import write_report

__all__ = ["write_report"]
