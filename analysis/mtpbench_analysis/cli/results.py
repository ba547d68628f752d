"""The comparison of a results folder, as `mtpbench run` ends with it."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from mtpbench_analysis.chart.terminal import asks_for_ascii
from mtpbench_analysis.comparisons import Question, compare_if_possible
from mtpbench_analysis.document import list_unused, write_document
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.markdown import to_markdown
from mtpbench_analysis.terminal import curves_of, to_terminal


def render_results(directory: Path) -> tuple[RenderableType, str]:
    """The comparison of a results folder, for the terminal and as Markdown; or why there is none yet.

    Raises:
        InputError, SchemaError, StoreError: the folder holds no sweep, or can't be read.
    """
    found = compare_if_possible(read_source(directory), Question())
    documents = [write_document(comparison) for comparison in found.outcome.comparisons]
    left_out = list_unused(found.outcome.left_out)
    drawings = curves_of(found.outcome.comparisons, ascii_only=asks_for_ascii(os.environ))
    table = to_terminal(documents, left_out, curves=drawings)
    if found.why_none is None:
        return table, to_markdown(documents, left_out)
    why = f"no comparison yet: {found.why_none}"
    return Group(Text(why), table), f"{why}\n\n{to_markdown(documents, left_out)}"
