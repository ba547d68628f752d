"""Pure: what an arm declares of its speculation, and the checks that all engines have in common.

A setting is written into an engine's options or refused here, never dropped.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mtpbench.engines.about import as_mapping
from mtpbench.engines.parts import of_role
from mtpbench.errors import UnsupportedError
from mtpbench.records import WITHOUT_MODEL, Method, Point, Speculation

LEAVE_OUT = "leave it out"


def misfit(point: Point, problem: str) -> UnsupportedError:
    """Returns the error of an arm that the engine can't speculate for; `problem` says what would be right."""
    speculation = point.arm.speculation
    method = f" ({speculation.method})" if speculation is not None else ""
    return UnsupportedError(f"arm {point.arm.name}{method}: {problem}")


def declared(
    point: Point, methods: Collection[Method], lacks: Sequence[str] = (), *, starts: Sequence[str] = ()
) -> Speculation | None:
    """Returns what the arm declares, after the checks that all engines have in common; None for none.

    Args:
        point: the point.
        methods: those that the engine has.
        lacks: fields of a speculation that it has no option for.
        starts: its options that start speculation, of any role.

    Raises:
        UnsupportedError: the engine can't do what the arm declares, or the base speculates by itself.
    """
    name, speculation = point.engine.name, point.arm.speculation
    given = {
        option.replace("_", "-")
        for group in point.topology.groups
        for option, value in of_role(point, group.role).items()
        if value is not False
    }
    if own := [option for option in starts if option in given]:
        what = "is off" if speculation is None else "says how it drafts"
        raise misfit(point, f"`engine.flags` give {own[0]}, and the arm {what}; take {own[0]} away")
    if speculation is None:
        return None
    if speculation.method not in methods:
        raise misfit(point, f"{name} has no such method; it has {', '.join(methods)}")
    for field_name in lacks:
        if getattr(speculation, field_name) is not None:
            raise misfit(point, f"{name} has no option for `{field_name}`; {LEAVE_OUT}")
    if speculation.method in WITHOUT_MODEL and speculation.acceptance.mode != "measured":
        raise misfit(
            point,
            "it drafts only where text repeats, so that no pinned acceptance is met; use "
            "`acceptance: measured`",
        )
    return speculation


def joined(point: Point, given: Any, ours: Mapping[str, Any], option: str) -> dict[str, Any]:
    """Returns the keys of an option that the arm sets, and what the sweep adds to them.

    Raises:
        UnsupportedError: the sweep gives a key otherwise than the arm.
    """
    extra = as_mapping(given)
    for key, value in ours.items():
        if key in extra and extra[key] != value:
            raise misfit(
                point, f"{option} gives {key}: {reprlib.repr(extra[key])}, and the arm {value!r}; {LEAVE_OUT}"
            )
    return {**ours, **extra}


def only_length(point: Point, speculation: Speculation) -> float | None:
    """Returns the acceptance length that is pinned, for an engine that pins one length for every step.

    None where acceptance is measured.

    Raises:
        UnsupportedError: the arm pins rates by position, or a length over changing depths.
    """
    policy, name = speculation.acceptance, point.engine.name
    if policy.mode == "measured":
        return None
    if speculation.depth is not None:
        raise misfit(
            point,
            f"{name} pins one length, which it would cut at each smaller depth; use `acceptance: measured`",
        )
    if policy.pinned_by == "sweep" and policy.rates is not None:
        raise misfit(
            point,
            f"{name} pins a length, not rates by position; use `acceptance: {{length: {policy.length:g}}}`",
        )
    return policy.length
