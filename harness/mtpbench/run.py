"""Where a sweep is run: what is left to measure, ladder by ladder; and a stored result made anew.

`ladder` serves one of them; `virtualrun` does the same without servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtpbench import hardware
from mtpbench.deployment import Site
from mtpbench.engines.registry import engine_of
from mtpbench.errors import InputError, UnsupportedError
from mtpbench.executors.local import LocalSite
from mtpbench.ladder import Ladder, Observer
from mtpbench.metrics import measure
from mtpbench.records import (
    Point,
    PointResult,
)
from mtpbench.store import SweepStore, read_point, read_raw, rewrite_result


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """What is left to measure: ladders of points, and the ids that are valid already."""

    ladders: tuple[tuple[Point, ...], ...]
    done: tuple[str, ...]


def plan_run(points: Sequence[Point], store: SweepStore, *, again: bool = False) -> RunPlan:
    """The points that are missing or invalid, by deployment, low concurrency first.

    Args:
        points: the chosen points of the sweep.
        store: where results are.
        again: measure valid points again too.
    """
    states = {point.id: store.state(point.id) for point in points}
    done = tuple(name for name, state in states.items() if state == "valid" and not again)
    ladders: dict[str, list[Point]] = {}
    for point in points:
        if point.id not in done:
            ladders.setdefault(point.deployment_key, []).append(point)
    ordered = tuple(
        tuple(sorted(ladder, key=lambda p: (p.repeat, p.concurrency))) for ladder in ladders.values()
    )
    return RunPlan(ladders=ordered, done=done)


def refuse_impossible(plan: RunPlan, site: Site | None = None) -> None:
    """Refuse, before anything starts, what can't run at a site (this machine where none is given).

    Raises:
        UnsupportedError: names the first such deployment, and what can be done instead.
    """
    site = site or LocalSite()
    for ladder in plan.ladders:
        first = ladder[0]
        deployment = engine_of(first).deploy(first, hardware.lookup(first.hardware))
        if why_not := site.obstacle(deployment, first):
            raise UnsupportedError(why_not)


async def run_live(
    plan: RunPlan,
    store: SweepStore,
    observer: Observer,
    stop: asyncio.Event,
    site: Site | None = None,
    servers: Path | None = None,
) -> None:
    """Measure every ladder of a plan on servers of its own.

    Args:
        plan: what to measure.
        store: where results go.
        observer: told what happens.
        stop: ends the run when set.
        site: where servers run; None for this machine.
        servers: where their files and logs go; None for the folder `servers` of the results.

    A point that fails is stored as invalid, and the ladder goes on. When `stop` is set, the running point is
    cut off, what it recorded is stored (invalid, so that the next run measures it again), and everything is
    taken down.

    Raises:
        RunError: an address asked for by number is taken.
        StoreError: results can't be written.
    """
    place = (site or LocalSite(), servers or store.directory / "servers")
    for ladder in plan.ladders:
        if stop.is_set():
            return
        await Ladder(ladder, store, observer, stop, place).run()


def recompute(directory: Path) -> tuple[PointResult, PointResult]:
    """A stored point's result as it was and as its raw records give it now, which takes its place.

    Raises:
        InputError: the point's chunks were stored summarised.
    """
    stored = read_point(directory)
    if stored.point.load.chunks == "summarised":
        raise InputError(
            f"{directory.name}: its chunks were stored summarised, so its result can't be computed again; "
            "measure with `load: {chunks: kept}` for that"
        )
    raw = read_raw(directory)
    result = measure(stored.point, raw.requests, raw.counters, raw.power, raw.client, raw.facts)
    if result != stored.result:
        rewrite_result(directory, result)
    return stored.result, result
