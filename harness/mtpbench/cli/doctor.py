"""`mtpbench doctor` and `system-power`: what a machine has, what load it can make, what power it may draw.

`doctor SWEEP --parsers` asks the engines here, or in a cluster's images, whether they would take its lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtpbench import plan as planning
from mtpbench.cli.options import ending_signals
from mtpbench.engines import abouts
from mtpbench.engines.about import About
from mtpbench.errors import InputError
from mtpbench.load import capacity
from mtpbench.load.capacity import Ceiling, Rung, local_ports, most_descriptors, usable_cores, workers_for
from mtpbench.load.ceiling import measure_ceiling
from mtpbench.parsers import REFUSALS, UNTRIED, Finding, State, Verdict, ask_ladders
from mtpbench.parsers.asking import ClusterLauncher, Launcher, launch_here
from mtpbench.power import provisioned
from mtpbench.power.log import Unread
from mtpbench.power.nvml import list_gpus
from mtpbench.slurm.cluster_profile import load_cluster
from mtpbench.sweep import load_sweep
from mtpbench.yaml_files import read_yaml
from mtpbench_analysis.cli.options import echo, make_console, write_output


def doctor(
    sweep: Annotated[Path | None, typer.Argument(help="say what this sweep needs of the load client")] = None,
    client: Annotated[
        bool, typer.Option("--client", help="measure what the load client can take, about half a minute")
    ] = False,
    parsers: Annotated[
        bool,
        typer.Option(
            "--parsers",
            help="ask the sweep's engine here whether it would take the command lines; serves nothing",
        ),
    ] = False,
    cluster: Annotated[
        str | None, typer.Option(help="ask with --parsers on a node of this cluster, in the engine's image")
    ] = None,
) -> None:
    """Show what this machine has: engines, GPUs, Slurm, power sources, and what its load client can take.

    With --parsers it ends with 0 where every line was taken, 1 where one was refused, and 3 where none was
    refused and some could not be asked.
    """
    console = make_console()
    loaded = load_sweep(sweep) if sweep is not None else None
    if parsers:
        if loaded is None:
            raise InputError("--parsers asks about the command lines of a sweep: give its file too")
        raise typer.Exit(ask_parsers(console, planning.ladders_of(loaded.points), cluster))
    if cluster is not None:
        raise InputError("--cluster is for --parsers: `mtpbench doctor SWEEP --parsers --cluster NAME`")
    if not client and loaded is None:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_header=False)
        for name, text in _inventory():
            table.add_row(name, Text(text))
        console.print(table)
    if client:
        console.print("events/s that one client process takes, against the built-in mock (20 ms steps):")
        measured = asyncio.run(measure_ceiling(lambda rung: _print_rung(console, rung)))
        path = capacity.store_ceiling(measured)
        console.print(f"{_ceiling_text(measured)}; kept in {path}", highlight=False, soft_wrap=True)
    if loaded is not None:
        _print_needs(console, planning.ladders_of(loaded.points))


def _inventory() -> Iterator[tuple[str, str]]:
    yield (
        "machine",
        f"{platform.machine()}, {usable_cores()} cores, {_memory()}, Python {platform.python_version()}",
    )
    # Python packages first, then what is only a program.
    for about in sorted(abouts(), key=lambda about: not about.modules):
        if about.title is not None:
            yield about.title, _installed(about)
    try:
        gpus = list_gpus()
        yield "GPUs, power", f"{len(gpus)} through NVML: {', '.join(sorted(set(gpus)))}" if gpus else "none"
    except Unread as why:
        yield "GPUs, power", f"none through NVML ({why.reason.detail})"
    sbatch = shutil.which("sbatch")
    yield "Slurm", sbatch or "not here (sbatch is not on the path)"
    descriptors, ports = most_descriptors(), local_ports()
    files = "any number of" if descriptors is None else f"{descriptors:,}"
    reach = "an unknown number of" if ports is None else f"{ports:,}"
    yield (
        "load client",
        f"{files} open files, {reach} local ports; {_ceiling_text(capacity.stored_ceiling())}",
    )


def _installed(about: About) -> str:
    if about.modules:
        is_here = find_spec(about.modules[0]) is not None
        return "installed" if is_here else f"not here (pip install 'mtpbench[{about.extra}]')"
    program = about.programs[0]
    return shutil.which(program) or f"not here ({program} is not on the path)"


def _memory() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{pages * size / 2**30:.0f} GiB"


def _ceiling_text(ceiling: Ceiling | None) -> str:
    if ceiling is None:
        return "its ceiling was not measured here yet (mtpbench doctor --client)"
    least = "at least " if ceiling.at_least else ""
    when = ceiling.measured_utc[:10]
    return f"one process takes {least}{ceiling.events_per_s:,.0f} events/s (measured {when})"


def _print_rung(console: Console, rung: Rung) -> None:
    lag = "–" if rung.lag_p99_s is None else f"{rung.lag_p99_s * 1e3:.1f} ms"
    cpu = "–" if rung.cpu_share is None else f"{rung.cpu_share:.0%}"
    verdict = "in time" if rung.kept_up else "late"
    if rung.mock_was_the_limit:
        verdict += f"; the mock was late itself in {rung.mock_late:.0%} of its steps"
    rate = f"  {rung.streams:>5} streams  {rung.events_per_s:>9,.0f} events/s"
    console.print(
        f"{rate}  reader lag p99 {lag}, CPU {cpu}: {verdict}",
        highlight=False,
        soft_wrap=True,
    )


def _print_needs(console: Console, ladders: tuple[planning.Ladder, ...]) -> None:
    ceiling = capacity.stored_ceiling()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("point", "events/s expected", "client processes"):
        table.add_column(heading, justify="left" if heading == "point" else "right")
    for ladder in ladders:
        for point in ladder.points:
            events = planning.expected_events_per_s(point, ladder.deployment.time_scale)
            needs = "–" if events is None else str(workers_for(events, ceiling))
            table.add_row(point.id, "unknown" if events is None else f"{events:,.0f}", needs)
    console.print(table)
    cores = usable_cores()
    console.print(f"{_ceiling_text(ceiling)}; {cores} cores here", highlight=False, soft_wrap=True)


REFUSED, NOT_ASKED = 1, 3
"""Exit codes of `--parsers`."""


def ask_parsers(console: Console, ladders: Sequence[planning.Ladder], cluster: str | None) -> int:
    """Asks the engines whether they would take the command lines; prints what they say.

    Args:
        console: takes the answers.
        ladders: of a sweep.
        cluster: the profile of the cluster whose node is asked; None for this machine.

    Returns:
        The exit code.

    Raises:
        InputError: there is no such profile.
    """
    launcher: Launcher = launch_here
    variables: Mapping[str, str] = os.environ
    if cluster is not None:
        profile = load_cluster(cluster)
        launcher, variables = ClusterLauncher(profile=profile), {**os.environ, **profile.environment}
    with _interrupted_by_signals():
        verdicts = ask_ladders(ladders, launcher, variables)
    console.print(_verdict_table(verdicts))
    _print_findings(console, verdicts)
    for name in UNTRIED:
        if any(one.program and one.program.name == name and one.versions for one in verdicts):
            text = f"{name} was asked by code that was written from its sources and has never met it"
            console.print(text, highlight=False, soft_wrap=True)
    states = Counter(verdict.state for verdict in verdicts)
    asked = ", ".join(f"{states[state]} {text}" for state, text in _STATES.items())
    console.print(f"{len(verdicts)} command lines: {asked}", highlight=False, soft_wrap=True)
    if not verdicts:
        console.print("the embedded engine comes with mtpbench: there is no engine to ask", highlight=False)
    return REFUSED if states["refused"] else NOT_ASKED if states["not_asked"] else 0


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Makes every signal that ends a run do what Ctrl-C does within the block: what it started ends first."""

    def interrupt(*_signal: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_STATES: Mapping[State, str] = {"accepted": "accepted", "refused": "refused", "not_asked": "not asked"}


def _verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Returns the table of deployments and kinds of processes: who was asked, and how far each line came."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("arm", "topology", "processes", "asked", "verdict"):
        table.add_column(heading, no_wrap=heading != "verdict")
    rows: dict[tuple[str, str, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        rows[verdict.point.arm.name, verdict.point.topology.name, verdict.process.role].append(verdict)
    for (arm, topology, role), group in rows.items():
        counts = Counter(map(_verdict_text, group))
        kinds = ", ".join(f"{count} {text}" if len(counts) > 1 else text for text, count in counts.items())
        table.add_row(arm, topology, f"{len(group)} {role}", Text(_asked_text(group[0])), Text(kinds))
    return table


def _asked_text(verdict: Verdict) -> str:
    return ", ".join(f"{package} {version}" for package, version in verdict.versions.items()) or "–"


def _verdict_text(verdict: Verdict) -> str:
    if verdict.state != "accepted":
        return _STATES[verdict.state]
    return f"accepted ({', '.join(verdict.stages)})"


_KINDS = {
    "refused": "refused",
    "unknown_option": "unknown option",
    "config_refused": "refused",
    "port_twice": "a port twice",
    "by_prefix": "warning",
    "ignored": "ignored",
    "deprecated": "deprecated",
}


def _print_findings(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Prints each finding once, refusals first, with the number of its lines; then what was not asked."""
    found: Counter[Finding] = Counter(finding for verdict in verdicts for finding in verdict.findings)
    for finding, lines in sorted(found.items(), key=lambda item: item[0].kind not in REFUSALS):
        kind = Text(_KINDS[finding.kind], "bold red" if finding.kind in REFUSALS else "bold yellow")
        where = f" ({finding.stage}, {_lines_text(lines)}): "
        console.print(Text.assemble(kind, where, finding.message), soft_wrap=True)
    unasked = Counter(verdict.not_asked for verdict in verdicts if verdict.not_asked is not None)
    for reason, lines in unasked.items():
        what = ("not asked", "bold yellow")
        console.print(Text.assemble(what, f" ({_lines_text(lines)}): {reason}"), soft_wrap=True)
    left_out = Counter(item for verdict in verdicts for item in verdict.left_out.items())
    for (stage, reason), lines in left_out.items():
        text = f" {stage} ({_lines_text(lines)}): {reason}"
        console.print(Text.assemble(("not asked for", "bold yellow"), text), soft_wrap=True)


def _lines_text(lines: int) -> str:
    return f"{lines} line{'s' * (lines > 1)}"


def system_power(
    system: Annotated[Path, typer.Argument(help="YAML with the keys of the form; docs/howto/power.md.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the form goes.")] = Path(
        "system_power.json"
    ),
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs of the system, to also say its kW per GPU.")
    ] = None,
) -> None:
    """Write system_power.json: what a system is built to draw, checked, with its source; no measurement."""
    power = provisioned.system_power(read_yaml(system))
    write_output(output, provisioned.render(power).encode())
    total_kw = provisioned.total_w(power) / 1000
    echo(f"{output}: {total_kw:,.3f} kW provisioned")
    if gpus is not None:
        each = total_kw / gpus
        echo(f"{each:.3f} kW per GPU of {gpus}: `mtpbench compare … --kw-per-gpu {each:.4g}`")
