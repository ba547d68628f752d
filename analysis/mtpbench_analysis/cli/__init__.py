"""The commands of the reading half; the only modules here that print."""

from __future__ import annotations

import typer

from mtpbench_analysis.cli.best import best_command
from mtpbench_analysis.cli.compare import compare_command, render_results
from mtpbench_analysis.cli.imports import import_app
from mtpbench_analysis.cli.plot import plot_command
from mtpbench_analysis.cli.regress import regress_command
from mtpbench_analysis.cli.report import report_command
from mtpbench_analysis.cli.schedule import schedule_command
from mtpbench_analysis.report import compare_folder, write_report

__all__ = [
    "compare_command",
    "compare_folder",
    "import_app",
    "register",
    "render_results",
    "write_report",
]


def register(app: typer.Typer) -> None:
    """Mounts the commands that read results on the main command."""
    app.command("compare")(compare_command)
    app.command("best")(best_command)
    app.command("regress")(regress_command)
    app.command("schedule")(schedule_command)
    app.command("report")(report_command)
    app.command("plot")(plot_command)
    app.add_typer(import_app, name="import")
