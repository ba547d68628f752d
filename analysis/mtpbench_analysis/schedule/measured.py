"""Pure: from arms that were measured to the depth of drafting by load.

The load is the batch of a step of one engine core: requests in flight / (workers that decode × their
data-parallel ranks). Where prefill has workers of its own, only the share of a request's time after its first
token counts: before it, a request is on no decoding worker. At a measured batch the best depth serves the
most output tokens/s; between two batches the logarithm of each depth's throughput is taken to run straight
over that of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, permutations
from typing import Any

import numpy as np

from mtpbench.errors import InputError
from mtpbench.records import Arm, DepthRange, Point, Speculation, WorkerGroup
from mtpbench_analysis.curves.break_even import decode_share
from mtpbench_analysis.curves.cells import Interval
from mtpbench_analysis.curves.curve import Grouping, build_curves
from mtpbench_analysis.curves.curve_reader import DEFAULT_CONFIDENCE, CurveReader
from mtpbench_analysis.curves.errors import START_NOISE, FloatArray, check_noise
from mtpbench_analysis.curves.twins import find_twins
from mtpbench_analysis.schedule.selection import Run, ValidRun, select_runs

_ALONE = "not every depth has a valid point there"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """A rung is one load at which every depth was measured.

    Args:
        batch: requests for each engine core that decodes.
        output_tps_per_gpu: of each depth, by the tokens that it drafts.
        ratio: the best depth's over the second's.
        interval: of the ratio; None where nothing tells the noise of runs.
    """

    batch: float
    concurrency: int
    output_tps_per_gpu: Mapping[int, float]
    best: int
    second: int
    ratio: float
    interval: Interval | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """A doubt is a range of batches in which the interval of the two best depths' ratio holds 1.

    Args:
        depths: the depths that may be the best there.
        is_known: False where nothing tells the noise of runs, so that all of it is in doubt.
    """

    first: int
    last: int
    depths: tuple[int, ...]
    is_known: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """A schedule says how many tokens a step drafts by its batch, and where that is in doubt.

    Args:
        point: one of the points it was made of; all share what is not an arm or a load.
        arms: the drafting arms, by depth.
        cores: engine cores that decode.
        ranges: from batch 1 to the last that was measured.
        left_out: what of the sweep is not in it, and why.
    """

    point: Point
    arms: Mapping[int, Arm]
    cores: int
    ranges: tuple[DepthRange, ...]
    rungs: tuple[Rung, ...]
    doubts: tuple[Doubt, ...]
    confidence: float
    left_out: tuple[str, ...] = ()

    @property
    def group(self) -> WorkerGroup:
        """Returns the workers that decode."""
        return decoding(self.point)

    @property
    def speculation(self) -> Speculation:
        """Returns the speculation of the deepest arm."""
        found = self.arms[max(self.arms)].speculation
        assert found is not None
        return found

    @property
    def most(self) -> int:
        """Returns the most tokens that it drafts; 0 where drafting is best nowhere."""
        return max(item.draft_tokens for item in self.ranges)

    @property
    def table(self) -> list[list[int]]:
        """Returns [first, last, draft tokens] of each range."""
        return [[item.first, item.last, item.draft_tokens] for item in self.ranges]


def find_schedule(
    runs: Sequence[Run],
    *,
    method: str | None = None,
    arm_prefix: str = "",
    topology: str | None = None,
    confidence: float = DEFAULT_CONFIDENCE,
    start_noise: float = START_NOISE,
) -> Schedule:
    """Returns the depth by load that the measured arms tell.

    Args:
        runs: the points of one sweep.
        method: whose depths; needed where arms of several methods were measured.
        arm_prefix: only drafting arms whose name begins so.
        topology: which; needed where several were measured.
        confidence: of the intervals.
        start_noise: how far two starts of one server are taken to differ, as a share.

    Raises:
        InputError: the points are not of one recipe, or of fewer than two depths; says what would be right.
    """
    check_noise(confidence, start_noise)
    selection = select_runs(runs, method, arm_prefix, topology)
    chosen, arms = selection.runs, selection.arms
    readers = _readers(chosen, arms, confidence, start_noise)
    ladder = _ladder(readers, chosen[0][0])
    ranges, doubts = _ranges(ladder)
    drafting = {depth: arm for depth, arm in arms.items() if depth}
    return Schedule(
        point=chosen[0][0],
        arms=drafting,
        cores=_cores(chosen[0][0]),
        ranges=ranges,
        rungs=ladder.rungs,
        doubts=doubts,
        confidence=confidence,
        left_out=(*selection.left_out, *_unpaired(chosen, ladder.rungs)),
    )


def decoding(point: Point) -> WorkerGroup:
    """Returns the workers that decode."""
    return point.topology.group("decode") or point.topology.groups[0]


def _cores(point: Point) -> int:
    """Returns the engine cores that decode: each data-parallel rank of each worker schedules for itself."""
    group = decoding(point)
    return group.workers * group.dp


def _readers(
    runs: Sequence[ValidRun], arms: Mapping[int, Arm], confidence: float, start_noise: float
) -> dict[int, CurveReader]:
    """Returns a curve of output tokens for each depth; all of its points count, behind a front or not."""
    readers = {}
    for stream, depth in enumerate(arms):
        points = [
            replace(figures, tput_tps_per_gpu=figures.output_tps_per_gpu)
            for point, figures in runs
            if point.draft_tokens == depth and figures.output_tps_per_gpu
        ]
        curves = build_curves(points, Grouping(pool=("version", "image")))
        if len(curves) != 1:
            raise InputError(f"{arms[depth].name}: its points make {len(curves)} curves; one is needed")
        readers[depth] = CurveReader(
            curve=curves[0], confidence=confidence, start_noise=start_noise, stream=stream
        )
    return readers


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ladder:
    """A ladder has the rungs of all depths, and what is between them.

    Args:
        logs: (depths, rungs) logarithms of output throughput.
        low, high: (depths, depths, rungs) ends of the intervals of the first depth's over the second's, as
            logarithms; NaN where nothing tells them.
    """

    depths: tuple[int, ...]
    rungs: tuple[Rung, ...]
    logs: FloatArray
    low: FloatArray
    high: FloatArray


def _batches(readers: Mapping[int, CurveReader], loads: Sequence[int], point: Point) -> dict[int, float]:
    """Returns the batch of each load, on the mean over depths; loads that bring no larger batch are left out.

    A load that only makes requests wait for prefill tells nothing of larger batches.
    """
    batches: dict[int, float] = {}
    for load in loads:
        shares = [1.0]
        if point.topology.disaggregated:
            means = (item.mean for reader in readers.values() for item in reader.curve.measured)
            known = (decode_share(mean) for mean in means if mean.concurrency == load)
            shares = [1.0 if share is None else share for share in known]
        batch = load / _cores(point) * sum(shares) / len(shares)
        if batch > max(batches.values(), default=0.0):
            batches[load] = batch
    return batches


def _ladder(readers: Mapping[int, CurveReader], point: Point) -> _Ladder:
    depths = tuple(readers)
    served = {
        depth: {item.mean.concurrency: item.y for item in reader.curve.measured}
        for depth, reader in readers.items()
    }
    loads = sorted({load for load in served[depths[0]] if load and all(load in of for of in served.values())})
    if not loads:
        raise InputError("no load was measured at every depth; `concurrency` of all arms has to share some")
    batches = _batches(readers, loads, point)
    loads = list(batches)
    logs = np.log([[served[depth][load] for load in loads] for depth in depths])
    low, high = _ends(readers, loads)
    rungs = []
    for at, load in enumerate(loads):
        best, second = _two_best(logs[:, at], depths)
        rungs.append(
            Rung(
                batch=batches[load],
                concurrency=load,
                output_tps_per_gpu={depth: served[depth][load] for depth in depths},
                best=depths[best],
                second=depths[second],
                ratio=math.exp(logs[best, at] - logs[second, at]),
                interval=_interval(
                    low[best, second, at], high[best, second, at], readers[depths[0]].confidence
                ),
            )
        )
    return _Ladder(depths=depths, rungs=tuple(rungs), logs=logs, low=low, high=high)


def _ends(readers: Mapping[int, CurveReader], loads: Sequence[int]) -> tuple[FloatArray, FloatArray]:
    """Returns the ends of the intervals of each depth's throughput over each other's, as logarithms."""
    low, high = (np.full((len(readers), len(readers), len(loads)), np.nan) for _ in range(2))
    for (i, ours), (j, theirs) in permutations(enumerate(readers.values()), 2):
        for pair in find_twins(theirs, [ours]):
            load, interval = pair.other.mean.concurrency, pair.tput_interval
            if load in loads and interval is not None:
                at = loads.index(load)
                low[i, j, at], high[i, j, at] = math.log(interval.low), math.log(interval.high)
    return low, high


def _interval(low: float, high: float, confidence: float) -> Interval | None:
    if math.isnan(low) or math.isnan(high):
        return None
    return Interval(low=math.exp(low), high=math.exp(high), confidence=confidence)


def _two_best(logs: FloatArray, depths: Sequence[int]) -> tuple[int, int]:
    """Returns the places of the best depth and the next; among equals the shallower one."""
    best, second, *_ = sorted(range(len(depths)), key=lambda i: (-logs[i], depths[i]))
    return best, second


def _ranges(ladder: _Ladder) -> tuple[tuple[DepthRange, ...], tuple[Doubt, ...]]:
    """Returns the best depth and the doubts of every batch, in ranges."""
    places = np.log([rung.batch for rung in ladder.rungs])
    last = max(1, math.floor(ladder.rungs[-1].batch + 1e-9))
    depths, doubts = [], []
    for batch in range(1, last + 1):
        at = math.log(batch)
        logs = np.array([np.interp(at, places, row) for row in ladder.logs])
        best, second = _two_best(logs, ladder.depths)
        ends = [float(np.interp(at, places, side[best, second])) for side in (ladder.low, ladder.high)]
        is_known = not any(map(math.isnan, ends))
        is_doubtful = not is_known or ends[0] <= 0 <= ends[1]
        pair = tuple(sorted((ladder.depths[best], ladder.depths[second])))
        depths.append(ladder.depths[best])
        doubts.append((pair, is_known) if is_doubtful else None)
    ranges = tuple(
        DepthRange(first=first, last=end, draft_tokens=depth) for first, end, depth in _grouped(depths)
    )
    unsure = [
        Doubt(first=first, last=end, depths=found[0], is_known=found[1])
        for first, end, found in _grouped(doubts)
        if found is not None
    ]
    return ranges, tuple(unsure)


def _grouped(values: Sequence[Any]) -> list[tuple[int, int, Any]]:
    """Returns (first, last, value) of equal neighbours, counted from 1."""
    found, first = [], 1
    for value, same in groupby(values):
        last = first + len(list(same)) - 1
        found.append((first, last, value))
        first = last + 1
    return found


def _unpaired(runs: Sequence[ValidRun], rungs: Sequence[Rung]) -> list[str]:
    shared = {rung.concurrency for rung in rungs}
    depths: dict[int, set[int]] = {}
    for point, _ in runs:
        depths.setdefault(point.concurrency, set()).add(point.draft_tokens)
    every = set[int]().union(*depths.values())
    return [
        f"concurrency {load}: "
        + ("it brings no larger batch, requests wait for prefill" if depths[load] == every else _ALONE)
        for load in sorted(depths.keys() - shared)
    ]
