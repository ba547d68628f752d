"""The command line: `mtpbench COMMAND`. Only it prints in the harness, and only it imports the analysis.

Exit codes: 0 done · 1 other · 2 bad input · 3 failed or invalid points · 4 results unreadable or unwritable ·
70 internal fault · 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer
from rich.console import Console

import mtpbench
from mtpbench.cli import doctor, plan, run, simulate, status, submit, watch
from mtpbench.errors import INTERNAL_FAULT_EXIT_CODE, MtpbenchError
from mtpbench_analysis import cli as analysis

app = typer.Typer(
    name="mtpbench",
    help="Does multi-token prediction pay, where, and by how much?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("plan")(plan.plan)
app.command("schema")(plan.schema)
app.command("run")(run.run)
app.command("submit")(submit.submit)
app.command("status")(status.status)
app.command("watch")(watch.watch)
app.command("cancel")(submit.cancel)
app.command("doctor")(doctor.doctor)
app.command("recompute")(run.recompute)
app.command("system-power")(doctor.system_power)
app.add_typer(simulate.app, name="simulate", help="The embedded engine: serve it, calibrate it.")
app.command("job", hidden=True)(submit.job)
app.command("tables", hidden=True)(submit.tables)
analysis.register(app)


def _show_version(is_set: bool) -> None:
    if is_set:
        typer.echo(f"mtpbench {mtpbench.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Does multi-token prediction pay, where, and by how much?"""


def main() -> None:
    """Runs the command line; an error of the project becomes one message and the exit code of its class."""
    errors = Console(stderr=True)
    try:
        app()
    except MtpbenchError as error:
        errors.print("[bold red]error:[/] ", end="")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        errors.print("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception:  # noqa: BLE001 - the outermost frame: any other exception is a bug of mtpbench
        traceback.print_exc()
        errors.print("[bold red]internal fault[/]: this is a bug in mtpbench; please report the lines above")
        sys.exit(INTERNAL_FAULT_EXIT_CODE)
