"""The public page's method, reproduced with its faults, and each of its numbers beside the honest one."""

from __future__ import annotations

from mtpbench_analysis.public_page.explain import ExplainedNumber, Explanation, explain_points
from mtpbench_analysis.public_page.method import METHODS, Method, check_method
from mtpbench_analysis.public_page.texts import (
    explanation_table,
    page_table,
    to_records,
    write_differences,
    write_page_document,
    write_page_sentences,
)

__all__ = [
    "METHODS",
    "ExplainedNumber",
    "Explanation",
    "Method",
    "check_method",
    "explain_points",
    "explanation_table",
    "page_table",
    "to_records",
    "write_differences",
    "write_page_document",
    "write_page_sentences",
]
