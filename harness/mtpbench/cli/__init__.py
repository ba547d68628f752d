"""The command line: `mtpbench COMMAND`. Only it prints in the harness, and only it imports the analysis.

Exit codes: 0 done · 1 other · 2 bad input · 3 failed or invalid points · 4 results unreadable or unwritable ·
70 internal fault · 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
import traceback
from typing import Annotated

import typer
from rich.text import Text

import mtpbench
from mtpbench.cli import doctor, plan, run, simulate, status, submit, watch
from mtpbench.cli.options import INTERRUPTED, safe_output
from mtpbench.errors import INTERNAL_FAULT_EXIT_CODE, MtpbenchError, RunError, StoreError
from mtpbench.load.capacity import limit_met
from mtpbench_analysis import cli as analysis
from mtpbench_analysis.cli.options import echo, make_console

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
        echo(f"mtpbench {mtpbench.__version__}")
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
    with safe_output() as output:
        code = _run()
        sys.stdout.flush()
        # Whoever closes a pipe or a terminal has read enough; a full disk has lost what was printed.
        if (
            output is not None
            and output.error is not None
            and output.error.errno not in (errno.EPIPE, errno.EIO)
        ):
            echo(f"error: standard output: {output.error.strerror}", err=True)
            code = code or StoreError.exit_code
    sys.exit(code)


def _run() -> int:
    """Runs the command line, and returns its exit code."""
    errors = make_console(stderr=True)
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except MtpbenchError as error:
        errors.print(Text("error: ", style="bold red"), end="")
        errors.print(str(error), soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        errors.print("interrupted")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the outermost frame: any other exception is a bug of mtpbench
        if (limit := limit_met(error)) is not None:
            errors.print(Text("error: ", style="bold red"), end="")
            errors.print(limit, soft_wrap=True)
            return RunError.exit_code
        echo(traceback.format_exc(), err=True)
        what = ("internal fault", "bold red")
        errors.print(Text.assemble(what, ": this is a bug in mtpbench; please report the lines above"))
        return INTERNAL_FAULT_EXIT_CODE
    return 0
