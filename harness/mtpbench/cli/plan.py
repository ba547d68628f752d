"""`mtpbench plan` and `schema`: what a sweep would measure, and which fields a sweep file may have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtpbench import plan as planning
from mtpbench.cli.options import SweepArgument
from mtpbench.engines import dynamo, engine_of, release_for
from mtpbench.engines.about import (
    About,
    OptionNotice,
    Release,
    newest,
    option_notices,
    version_at_start,
    version_in_image,
)
from mtpbench.engines.releases import PINS
from mtpbench.errors import InputError
from mtpbench.executors.local import missing_program
from mtpbench.load.capacity import ASSUMED_EVENTS_PER_S, stored_ceiling, workers_for
from mtpbench.plan import START_S, Ladder, LadderEstimate, StartsEstimate
from mtpbench.records import LEAST_WARMUP_TO_SPREAD, Engine, Point, SweepInfo
from mtpbench.sweep import Sweep, load_sweep
from mtpbench.sweep.schema import schema_text
from mtpbench_analysis.cli.options import echo, make_console


def plan(
    sweep: SweepArgument,
    commands: Annotated[bool, typer.Option(help="show every process's command line")] = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="refuse to measure acceptance where it is not that of real use")
    ] = False,
) -> None:
    """Show a sweep's points, nodes, GPU-hours, dollars, command lines and confounds; starts nothing."""
    console = make_console()
    loaded = load_sweep(sweep)
    warnings = planning.acceptance_warnings(loaded.points)
    if strict and warnings:
        raise InputError("--strict: " + "; ".join(warnings))
    estimates = planning.plan_sweep(loaded)
    ladders = [estimate.ladder for estimate in estimates]
    console.print(Text.assemble((loaded.info.name, "bold"), f": {loaded.info.question}"))
    console.print(_ladder_table(estimates, loaded))
    _print_totals(console, estimates, loaded.info)
    _print_rules(console, ladders[0].first)
    _print_client(console, ladders)
    _print_release(console, loaded.points)
    _print_warnings(console, warnings)
    _print_confounds(console, loaded.info)
    _print_missing(console, ladders)
    if commands:
        _print_commands(ladders)


def schema() -> None:
    """Print the JSON Schema of sweep files, for editors."""
    typer.echo(schema_text(), nl=False)


def _ladder_table(estimates: tuple[LadderEstimate, ...], sweep: Sweep) -> Table:
    """Returns the table of deployments: what all starts of one take stands in its row."""
    deployments: dict[str, list[LadderEstimate]] = {}
    for estimate in estimates:
        deployments.setdefault(estimate.ladder.unlaunched_key, []).append(estimate)
    starts = f", {len(estimates)} starts" if len(estimates) > len(deployments) else ""
    title = f"{len(sweep.points)} points on {len(deployments)} deployments{starts}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("arm", "topology"):
        table.add_column(heading, no_wrap=True)
    table.add_column("concurrency", min_width=11)
    for heading in ("GPUs", "nodes", "requests", "hours", "GPU-h"):
        table.add_column(heading, justify="right", no_wrap=True)
    for launches in deployments.values():
        first, deployment = launches[0].ladder.first, launches[0].ladder.deployment
        table.add_row(
            first.arm.label,
            first.topology.name,
            _rungs(launches),
            str(deployment.gpus),
            str(deployment.nodes),
            _number(_sum(estimate.requests for estimate in launches), ",.0f"),
            _number(_sum(estimate.hours for estimate in launches), ".2f"),
            _number(_sum(estimate.gpu_hours for estimate in launches), ".1f"),
        )
    return table


def _rungs(launches: Sequence[LadderEstimate]) -> str:
    """Returns the loads of a deployment, and how often each is measured."""
    points = [point for estimate in launches for point in estimate.ladder.points]
    is_open = points[0].load.open or points[0].load.ramp_s
    rungs = dict.fromkeys(point.load_label("mark") if is_open else str(point.concurrency) for point in points)
    repeats = 1 + max(point.repeat for point in points)
    return (", " if is_open else " ").join(rungs) + (f"  ×{repeats}" if repeats > 1 else "")


def _sum(values: Iterable[float | None]) -> float | None:
    """Returns the sum of values; None where one is unknown."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _print_totals(console: Console, estimates: tuple[LadderEstimate, ...], info: SweepInfo) -> None:
    estimated = [estimate for estimate in estimates if estimate.hours is not None]
    for reason in dict.fromkeys(estimate.reason for estimate in estimates if estimate.reason):
        console.print(f"not estimated: {reason}", highlight=False)
    if not estimated:
        return
    if lacking := dict.fromkeys(estimate.lacking for estimate in estimated if estimate.lacking):
        console.print(
            f"no step costs of {', '.join(lacking)}: those of mtp with as many drafts stand in",
            highlight=False,
        )
    hours = sum(estimate.hours or 0 for estimate in estimated)
    if estimated[0].ladder.first.simulation:
        console.print(
            f"estimated: {hours * 60:.1f} minutes on this machine, one deployment after the other; "
            "SIMULATED: no GPU is used and nothing is paid",
            highlight=False,
        )
        _print_starts(console, estimated, hours * 60, "minutes")
        return
    gpu_hours = sum(estimate.gpu_hours or 0 for estimate in estimated)
    tiers = info.hardware.usd_per_gpu_h.items()
    prices = ", ".join(f"${gpu_hours * usd:,.0f} {tier}" for tier, usd in tiers if usd is not None)
    unpriced = "".join(f"; no price of {tier}: {why}" for tier, why in info.hardware.unpriced.items())
    console.print(
        f"estimated: {gpu_hours:,.1f} GPU-hours ({hours:.1f} hours one after the other) = {prices}\n"
        f"from the embedded engine's step costs and {START_S / 60:.0f} minutes to start each deployment; "
        f"prices of {info.hardware.constants_date} ({info.hardware.source}){unpriced}",
        highlight=False,
    )
    _print_starts(console, estimated, gpu_hours, "GPU-hours")


def _print_starts(
    console: Console,
    estimates: Sequence[LadderEstimate],
    total: float,
    unit: Literal["minutes", "GPU-hours"],
) -> None:
    """Prints what the starts of servers take of a total, and what they would take had the sweep `restart`
    (or not).
    """

    def cost(starts: StartsEstimate) -> float:
        return starts.hours * 60 if unit == "minutes" else starts.gpu_hours

    points = [point for estimate in estimates for point in estimate.ladder.points]
    now, otherwise = map(planning.estimate_starts, (points, planning.restarted_otherwise(points)))
    text = f"servers start {now.number} times, for {cost(now):,.1f} of these {unit}"
    if now.number != otherwise.number:
        shared, setting = "; all repeats of a deployment share one start", "with `restart: true`"
        if now.number > otherwise.number:
            shared, setting = "; each repeat has a start of its own", "without `restart`"
        in_all = total - cost(now) + cost(otherwise)
        text += (
            f"{shared}\n{setting}: {otherwise.number} starts, {cost(otherwise):,.1f} of {in_all:,.1f} {unit}"
        )
    console.print(text, highlight=False)


def _print_rules(console: Console, first: Point) -> None:
    """Prints by which dated rule the points are measured."""
    rules = first.measurement
    parts = ["lengths drawn independently", "slots in step", "all of the warm window"]
    if rules.stratifies_lengths:
        parts[0] = "lengths spread evenly"
    if rules.spreads_phases:
        parts[1] = "slots out of step"
    elif rules.awaits_settling:
        parts[1] += (
            f" (warmup_per_slot is {rules.warmup_per_slot:g}, and spreading them takes "
            f"{LEAST_WARMUP_TO_SPREAD:g}: energy and TTFT may be a few percent off)"
        )
    if rules.awaits_settling:
        parts[2] = "the window from where rates have settled"
    told = parts[:1] if first.load.open else parts
    console.print(f"measured by rule {rules.rule}: {', '.join(told)}", highlight=False)


def _print_client(console: Console, ladders: Sequence[Ladder]) -> None:
    """Prints how many processes the load client will need on a machine like this one."""
    expected = [
        events
        for ladder in ladders
        for point in ladder.points
        if (events := planning.expected_events_per_s(point, ladder.deployment.time_scale)) is not None
    ]
    if not expected:
        return
    ceiling = stored_ceiling()
    needs = workers_for(max(expected), ceiling)
    if ceiling is not None:
        basis = f"one takes {ceiling.events_per_s:,.0f} on this machine, measured {ceiling.measured_utc[:10]}"
    else:
        basis = f"one is assumed to take {ASSUMED_EVENTS_PER_S:,.0f}; `mtpbench doctor --client` measures it"
    console.print(
        f"load client: {needs} process{'es' * (needs > 1)} for up to {max(expected):,.0f} events/s ({basis})",
        highlight=False,
    )


_NAMED_BY: Mapping[str, str] = {
    "version": "named by engine.version",
    "image": "named by the image",
    "image_day": "the last release before the day in the image's name",
    "router": "which the router's release pins",
    "newest_router": "which the newest router known here pins: the sweep names no release",
    "nothing": "the newest known here: neither engine.version nor the image names one",
}


def _print_release(console: Console, points: Sequence[Point]) -> None:
    """Prints for which release the command lines are written, and which options it names otherwise."""
    about, release = engine_of(points[0]).ABOUT, release_for(points[0])
    if release is None:
        return
    console.print(
        f"command lines are written for {about.package} {release.version} ({_NAMED_BY[release.named_by]})",
        highlight=False,
    )
    _print_warnings(console, _release_warnings(points, release))


def _print_warnings(console: Console, warnings: Iterable[str]) -> None:
    for warning in warnings:
        console.print(Text.assemble(("  warning: ", "bold"), warning), soft_wrap=True)


def _release_warnings(points: Sequence[Point], release: Release) -> Iterator[str]:
    """Yields a sentence on whatever of a sweep doesn't fit its release, or won't fit a later one."""
    engine, about = points[0].engine, engine_of(points[0]).ABOUT
    own = dynamo.is_own(engine.image)
    tag = None if own else version_in_image(engine.image, about.releases)
    if release.named_by == "version" and tag is not None and not release.equals(tag):
        yield f"engine.version says {release.version}, and the image's name {tag}"
    if engine.version and not version_at_start(engine.version, about.package):
        yield f"engine.version is {engine.version!r}, which begins with no release number"
    last = newest(about.releases)
    if release.since(last) and not release.equals(last):
        yield f"{release.version} is newer than {last}, the newest that mtpbench knows"
    if engine.router == dynamo.ROUTER or own:
        yield from _router_warnings(engine, about, release)
    layers = [flags for p in points for flags in (*p.engine.flags.values(), *p.arm.forces.values())]
    for notice in option_notices(layers, about.renamings, release):
        yield _notice_text(notice, f"{about.package} {release.version}")


def _router_warnings(engine: Engine, about: About, release: Release) -> Iterator[str]:
    """Yields a sentence where Dynamo's release is unknown, or made for another release of the engine."""
    if engine.router_version and not version_at_start(engine.router_version, dynamo.PACKAGE):
        yield f"engine.router_version is {engine.router_version!r}, which begins with no release number"
    if (front := dynamo.named_release(engine)) is None or about.package is None:
        return
    pin = dynamo.pins_of(front).get(about.package)
    if pin is None and about.package in PINS[newest(PINS)]:
        made = f"{dynamo.PACKAGE} {front} is not known here"
        yield f"{made}, nor which {about.package} it is made for: name that in engine.version"
    elif pin is not None and not release.equals(pin):
        made = f"{dynamo.PACKAGE} {front} is made for {about.package} {pin}"
        yield f"{made}: its workers may not start with another release"


def _notice_text(notice: OptionNotice, release: str) -> str:
    renaming, used = notice.renaming, _option_text(notice.used)
    parts = []
    if notice.written != notice.used:
        parts.append(f"{used} is written {_option_text(notice.written)} for {release}")
    if notice.used == renaming.old:
        if renaming.removed is not None:
            parts.append(f"{used} is gone since {renaming.removed}")
        elif renaming.goes_after is not None:
            parts.append(f"{used} goes after {renaming.goes_after}")
        elif renaming.new is None:
            parts.append(f"{used} is deprecated since {renaming.deprecated}")
        if notice.written == notice.used and renaming.new is not None:
            parts.append(f"from {renaming.since} on {_option_text(renaming.new)} takes its place")
    return "; ".join(parts)


def _option_text(name: str) -> str:
    """Returns an option as a command line has it; a key of a JSON option in braces."""
    option, _, key = name.partition(".")
    return f"--{option} {{{key}}}" if key else f"--{option}"


def _print_confounds(console: Console, info: SweepInfo) -> None:
    if not info.confounds:
        console.print("Beyond speculation the arms differ in nothing.", highlight=False)
        return
    console.print(Text("Beyond speculation the arms differ:", style="bold"))
    bullets = Table.grid(padding=(0, 1))
    for sentence in info.confounds:
        bullets.add_row("  -", Text(sentence))
    console.print(bullets)


def _print_missing(console: Console, ladders: Sequence[Ladder]) -> None:
    """Prints which engine is not installed here: no error, as the sweep may run elsewhere or in its image."""
    deployments = [ladder.deployment for ladder in ladders]
    local = [deployment for deployment in deployments if not any(p.container for p in deployment.processes)]
    texts = {missing.text for deployment in local if (missing := missing_program(deployment))}
    for text in sorted(texts)[:1]:
        console.print(f"To run it here: {text}", highlight=False, markup=False)


def _print_commands(ladders: Sequence[Ladder]) -> None:
    """Prints the command lines as plain text without wrapping, for copying and for grep.

    Those of a deployment that starts several times stand once.
    """
    deployments: dict[str, Ladder] = {}
    for ladder in ladders:
        deployments.setdefault(ladder.unlaunched_key, ladder)
    for ladder in deployments.values():
        echo(f"\n# {ladder.key}")
        for process in ladder.deployment.processes:
            gpus = f", GPUs {process.gpus[0]}-{process.gpus[-1]}" if process.gpus else ""
            image = f", image {process.container.image}" if process.container else ""
            tasks = f", {process.mpi_tasks} MPI tasks" if process.mpi_tasks > 1 else ""
            echo(f"## {process.name} ({process.role}, node {process.node}{gpus}{tasks}{image})")
            echo(planning.command_line(process))
            for file in process.files:
                echo(f"## file {file.path}\n{file.text.rstrip()}")
