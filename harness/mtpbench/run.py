"""What is left of a sweep to measure, ladder by ladder, where it runs; and a stored result made anew.

`deployment_run` serves one ladder; `virtual_run` does the same without servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtpbench.deployment import Site
from mtpbench.deployment_run import DeploymentRun, RunContext
from mtpbench.errors import InputError, UnsupportedError
from mtpbench.measure import measure
from mtpbench.plan import Ladder, ladders_of
from mtpbench.progress import Observer, PointCounts
from mtpbench.records import Point, PointResult
from mtpbench.store import SweepStore, read_point, read_raw, rewrite_result


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """What is left to measure: ladders, and the ids of points that are valid already."""

    ladders: tuple[Ladder, ...]
    done: tuple[str, ...]

    @property
    def points(self) -> tuple[Point, ...]:
        """The points left, in the order that they run."""
        return tuple(point for ladder in self.ladders for point in ladder.points)

    def counts(self) -> PointCounts:
        """Counts that begin with what is done."""
        return PointCounts(total=len(self.done) + len(self.points), valid=len(self.done))


def plan_run(points: Sequence[Point], store: SweepStore, *, again: bool = False) -> RunPlan:
    """The ladders of the points that are missing or invalid.

    Args:
        points: the chosen points of the sweep.
        store: where results are.
        again: measure valid points again too.
    """
    states = [store.state(point.id) for point in points]
    done = [state == "valid" and not again for state in states]
    return RunPlan(
        ladders=ladders_of(point for point, is_done in zip(points, done, strict=True) if not is_done),
        done=tuple(point.id for point, is_done in zip(points, done, strict=True) if is_done),
    )


def refuse_impossible(plan: RunPlan, site: Site) -> None:
    """Refuse, before anything starts, what can't run at a site.

    Raises:
        UnsupportedError: names the first such deployment, and what can be done instead.
    """
    for ladder in plan.ladders:
        if why_not := site.obstacle(ladder.deployment, ladder.first):
            raise UnsupportedError(why_not)


async def run_live(
    plan: RunPlan,
    store: SweepStore,
    observer: Observer,
    stop: asyncio.Event,
    site: Site,
    servers: Path | None = None,
) -> None:
    """Measure every ladder of a plan on servers of its own.

    Args:
        plan: what to measure.
        store: where results go.
        observer: told what happens.
        stop: ends the run when set.
        site: where servers run.
        servers: where their files and logs go; None for the folder `servers` of the results.

    A point that fails is stored as invalid, and the ladder goes on. When `stop` is set, the running point is
    cut off, what it recorded is stored (invalid, so that the next run measures it again), and everything is
    taken down.

    Raises:
        RunError: an address asked for by number is taken.
        StoreError: results can't be written.
    """
    context = RunContext(
        store=store,
        observer=observer,
        stop=stop,
        site=site,
        servers=servers or store.directory / "servers",
    )
    for ladder in plan.ladders:
        if stop.is_set():
            return
        await DeploymentRun(ladder, context).run()


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
