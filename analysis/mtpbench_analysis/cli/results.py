"""The comparison of a results folder, as `mtpbench run` ends with it."""

from __future__ import annotations

import os

from rich.console import Group, RenderableType
from rich.text import Text

from mtpbench_analysis.chart.terminal import asks_for_ascii
from mtpbench_analysis.render.terminal import curves_of, to_terminal
from mtpbench_analysis.report import FolderComparison


def render_results(compared: FolderComparison) -> RenderableType:
    """Returns the comparison of a results folder for the terminal, or why there is none yet."""
    comparisons, why_none = compared.outcome.outcome.comparisons, compared.outcome.why_none
    drawings = curves_of(comparisons, ascii_only=asks_for_ascii(os.environ))
    table = to_terminal(compared.documents, compared.left_out, curves=drawings)
    return table if why_none is None else Group(Text(f"no comparison yet: {why_none}"), table)
