"""Pure: a regression laid out for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from mtpbench_analysis.markdown import table_to_markdown
from mtpbench_analysis.regression import report
from mtpbench_analysis.regression.verdicts import Regression
from mtpbench_analysis.tables import Table
from mtpbench_analysis.terminal_table import FittedTable

_LISTED = 12
_FOUND = ("slower", "faster", "lower", "higher")
_STYLES = {"slower": "bold red", "faster": "green", "no change": "green"}


def to_terminal(regression: Regression) -> RenderableType:
    """The findings over all, then by arm and by recipe; readable at 100 columns."""
    parts: list[RenderableType] = [Text(report.title(regression), style="bold"), Text("")]
    if banner := report.banner(regression):
        parts += [Text(banner, style="bold yellow"), Text("")]
    parts += [Text(line) for line in report.heading(regression)]
    parts += _list("In words", report.sentences(regression))
    parts += _table(report.summary_table(regression))
    parts += _list("What this rests on", report.notes(regression))
    for table in report.recipe_tables(regression):
        parts += _table(_shortened(table))
    parts += _list("Not tested", report.list_left_out(regression.left_out))
    return Group(*parts)


def to_markdown(regression: Regression) -> str:
    """The same as Markdown."""
    parts = [f"## {escape(report.title(regression))}"]
    if banner := report.banner(regression):
        parts.append(f"> **{banner}**")
    parts.append(_bullets(report.heading(regression)))
    parts.append("### In words\n\n" + _bullets(report.sentences(regression)))
    summary = report.summary_table(regression)
    parts += [f"### {summary.title}", table_to_markdown(summary)]
    parts.append("### What this rests on\n\n" + _bullets(report.notes(regression)))
    for table in report.recipe_tables(regression):
        parts += [f"### {table.title}", table_to_markdown(table)]
    if left_out := report.list_left_out(regression.left_out):
        parts.append("### Not tested\n\n" + _bullets(left_out))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """File names and engine options are the user's: they must not break the page."""
    for character in ("\\", "|", "<", "*", "`", "[", "$", "_"):
        text = text.replace(character, "\\" + character)
    return text


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)


def _list(title: str, lines: Sequence[str]) -> list[RenderableType]:
    if not lines:
        return []
    rows = RichTable.grid(padding=(0, 1))
    for line in lines:
        rows.add_row(Text(" •"), Text(line))
    return [Text(""), Text(title, style="bold"), rows]


def _shortened(table: Table) -> Table:
    """The rows where something was found, then the first of the others; the other formats have all."""
    hidden = len(table.rows) - _LISTED
    if hidden <= 0:
        return table
    rows = sorted(table.rows, key=lambda row: row[-1] not in _FOUND)[:_LISTED]
    return replace(table, rows=tuple(rows), caption=f"and {hidden} more (--format md or json)")


def _table(table: Table) -> list[RenderableType]:
    last = len(table.headers) - 1
    styles = {(i, last): _STYLES[row[last]] for i, row in enumerate(table.rows) if row[last] in _STYLES}
    caption = [Text(table.caption, style="dim")] if table.caption else []
    return [Text(""), FittedTable(table, styles), *caption]
