"""Pure: how long what is missing may take, from how long the measured points of the same load took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from mtpbench.watch.picture import Picture, SeenPoint, seconds_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What is left to measure.

    Args:
        seconds: of load, for the points whose load was measured before; in several jobs side by side, those
            of the longest ladder.
        points: how many of the points left that covers.
        unknown: how many it does not: nobody has measured their concurrency yet.
        side_by_side: whether ladders run in jobs of their own.
    """

    seconds: float
    points: int
    unknown: int
    side_by_side: bool


def find_left(picture: Picture) -> Left | None:
    """The time left; None where nothing is left, nothing tells, or time passes differently.

    A virtual clock's points are simulated side by side, so their durations do not add up.
    """
    left = picture.having("missing", "damaged", "incomplete")
    if not left or any(one.stored and one.stored.result.clock == "virtual" for one in picture.points):
        return None
    ladders: dict[tuple[str, str], float] = {}
    covered = 0
    for point in left:
        if (duration_s := _duration_like(point, picture.points)) is None:
            continue
        covered += 1
        if point.planned.id in picture.running:
            # Points of a ladder follow each other, so this one began about when the last one was stored.
            begun_s = max(picture.changed_s or 0.0, picture.servers.started_s if picture.servers else 0.0)
            duration_s = max(0.0, duration_s - (picture.now_s - begun_s))
        key = (point.planned.arm, point.planned.topology)
        ladders[key] = ladders.get(key, 0.0) + duration_s
    if not covered:
        return None
    side_by_side = bool(picture.jobs)
    seconds = max(ladders.values()) if side_by_side else sum(ladders.values())
    return Left(seconds=seconds, points=covered, unknown=len(left) - covered, side_by_side=side_by_side)


def _duration_like(point: SeenPoint, points: Sequence[SeenPoint]) -> float | None:
    """The mean duration of the same load in this arm, else in any."""
    same = [one for one in points if one.planned.rung == point.planned.rung and one.stored]
    own = [one for one in same if one.planned.arm == point.planned.arm]
    known = [taken for one in own or same if (taken := duration_of(one)) is not None]
    return fmean(known) if known else None


def duration_of(point: SeenPoint) -> float | None:
    """Wall seconds that a point took from the start of its load to its end; None where it sent nothing."""
    if point.stored is None or not point.stored.result.requests:
        return None
    origin = point.stored.provenance
    taken = seconds_of(origin.finished_utc) - seconds_of(origin.started_utc)
    return taken if taken > 0 else None
