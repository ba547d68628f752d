"""Pure: which measured points a schedule is made of, and what of a sweep is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mtpbench.errors import InputError
from mtpbench.records import Arm, Point
from mtpbench_analysis.frame import CurvePoint, Unused
from mtpbench_analysis.numbers import counted, listed

Run = tuple[Point, CurvePoint | Unused]
"""A stored point, and its figures, or why it has none."""
ValidRun = tuple[Point, CurvePoint]
_SHARED = ("model", "hardware", "engine", "workload", "load", "measurement", "simulation")
"""What all points of one recipe family have in common; arms, loads and repeats differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """A selection has the valid points of one recipe at several depths.

    Args:
        runs: the points.
        arms: by the tokens that they draft, shallow ones first.
        left_out: what of the sweep is not in it, and why.
    """

    runs: Sequence[ValidRun]
    arms: Mapping[int, Arm]
    left_out: tuple[str, ...]


def select_runs(runs: Sequence[Run], method: str | None, arm_prefix: str, topology: str | None) -> Selection:
    """Returns the points that a schedule is made of; arguments and errors are those of `find_schedule`."""
    of_arms, other_off = _of_arms(runs, method, arm_prefix)
    considered = _of_topology(of_arms, topology)
    valid = [(point, run) for point, run in considered if isinstance(run, CurvePoint) and run.valid]
    if not any(point.draft_tokens for point, _ in valid):
        raise _nothing_drafts(considered)
    arms = _arms_by_depth(valid, other_off)
    _check_recipe([point for point, _ in valid])
    return Selection(runs=valid, arms=arms, left_out=(*_without_off(arms), *other_off, *_invalid(considered)))


def _nothing_drafts(runs: Sequence[Run]) -> InputError:
    names = ", ".join(sorted({point.arm.name for point, _ in runs})) or "none"
    return InputError(f"no valid point of a static depth of drafting; arms with points: {names}")


def _of_arms(runs: Sequence[Run], method: str | None, prefix: str) -> tuple[list[Run], list[str]]:
    """Returns the points of static depths of one method, and those without speculation on their checkpoint.

    Of several arms without speculation one will do: their servers are the same. Which others there are is
    told in sentences.
    """
    static = [
        run
        for run in runs
        if (speculation := run[0].arm.speculation) is not None
        and speculation.depth is None
        and run[0].arm.name.startswith(prefix)
        and method in (None, speculation.method)
    ]
    methods = sorted({run[0].arm.speculation.method for run in static if run[0].arm.speculation})
    if not static:
        raise _nothing_drafts(runs)
    if len(methods) > 1:
        raise InputError(
            f"arms of several methods were measured ({', '.join(methods)}); choose with --method"
        )
    off = [run for run in runs if run[0].arm.speculation is None]
    checkpoint = static[0][0].checkpoint
    alike = [(point, run) for point, run in off if point.checkpoint == checkpoint]
    usable = [point for point, run in alike if isinstance(run, CurvePoint) and run.valid]
    name = next((point.arm.name for point in (*usable, *(point for point, _ in alike))), None)
    others = {point.arm.name: point.checkpoint for point, _ in off if point.arm.name != name}
    told = [
        f"{other}: it serves {served}, and {static[0][0].arm.name} {checkpoint}"
        if served != checkpoint
        else f"{other}: it is served as {name} is"
        for other, served in others.items()
    ]
    return [*(run for run in off if run[0].arm.name == name), *static], told


def _of_topology(runs: Sequence[Run], name: str | None) -> list[Run]:
    names = sorted({point.topology.name for point, _ in runs})
    if name is None and len(names) > 1:
        raise InputError(
            f"several topologies were measured ({', '.join(names)}), and each has batches of its own; choose "
            "with --topology"
        )
    chosen = [run for run in runs if name in (None, run[0].topology.name)]
    if not chosen:
        raise InputError(f"--topology {name}: there are {', '.join(names)}")
    return chosen


def _arms_by_depth(runs: Sequence[ValidRun], other_off: Sequence[str]) -> dict[int, Arm]:
    arms: dict[int, Arm] = {}
    for point, _ in runs:
        same = arms.setdefault(point.draft_tokens, point.arm)
        if same.name != point.arm.name:
            raise InputError(
                f"two arms draft {point.draft_tokens} tokens ({same.name}, {point.arm.name}); choose with "
                "--arm-prefix"
            )
    if len(arms) < 2:
        (depth,) = arms
        raise InputError(
            f"only one depth was measured ({counted(depth, 'draft token')}); arms of other depths, or one "
            "without speculation on its checkpoint, are needed to tell which is best"
            + "".join(f"; not used is {other}" for other in other_off)
        )
    return dict(sorted(arms.items()))


def _check_recipe(points: Sequence[Point]) -> None:
    """Refuses points that differ in more than depth, load and repeat."""
    if any(point.load.open for point in points):
        raise InputError(
            "an open loop serves what is sent, at any depth; a schedule needs closed loops (`concurrency`)"
        )
    # What stands in for the step costs of a method differs between drafting and not.
    alike = [
        replace(point, simulation=point.simulation and replace(point.simulation, step_costs=None))
        for point in points
    ]
    for name in _SHARED:
        if len({repr(getattr(point, name)) for point in alike}) > 1:
            raise InputError(f"the points differ in their {name}; a schedule needs one recipe at all depths")
    traits: dict[str, Callable[[Arm], Any]] = {
        "checkpoint": lambda arm: arm.checkpoint,
        **{name: _trait(name) for name in ("draft_model", "draft_sampling", "rejection_method")},
        "acceptance": lambda arm: arm.speculation and arm.speculation.acceptance.mode,
    }
    for name, of in traits.items():
        arms = [point.arm for point in points if name == "checkpoint" or point.arm.speculation is not None]
        values = {of(arm) for arm in arms}
        if len(values) > 1:
            raise InputError(
                f"the arms differ in their {name} ({listed(sorted(map(str, values)))}); depths of one recipe "
                "are needed (--arm-prefix)"
            )


def _trait(name: str) -> Callable[[Arm], Any]:
    return lambda arm: getattr(arm.speculation, name)


def _without_off(arms: Mapping[int, Arm]) -> list[str]:
    """Returns that nothing tells whether drafting pays at all, where nothing does."""
    served = next(iter(arms.values())).checkpoint
    where = f" on {served}" if served else ""
    missing = f"no valid point without speculation{where}: whether drafting nothing serves more is not known"
    return [] if 0 in arms else [missing]


def _invalid(runs: Sequence[Run]) -> list[str]:
    told = []
    for point, run in runs:
        if isinstance(run, Unused):
            told.append(f"{point.arm.name}, {run.what}: invalid: {run.reason}")
        elif not run.valid:
            told.append(f"{run.arm}, {run.recipe}: invalid: {'; '.join(run.reasons)}")
    return told
