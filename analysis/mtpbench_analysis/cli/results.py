"""The comparison of a results folder, as `mtpbench run` ends with it."""

from __future__ import annotations

from pathlib import Path

from rich.console import RenderableType

from mtpbench_analysis.comparisons import compare_results
from mtpbench_analysis.document import list_unused, write_document
from mtpbench_analysis.markdown import to_markdown
from mtpbench_analysis.terminal import curves_of, to_terminal


def render_results(directory: Path) -> tuple[RenderableType, str]:
    """The comparison of a results folder, for the terminal and as Markdown.

    Raises:
        InputError, SchemaError, StoreError: as `compare_results` says.
    """
    outcome = compare_results(directory)
    documents = [write_document(comparison) for comparison in outcome.comparisons]
    left_out = list_unused(outcome.left_out)
    table = to_terminal(documents, left_out, curves=curves_of(outcome.comparisons))
    return table, to_markdown(documents, left_out)
