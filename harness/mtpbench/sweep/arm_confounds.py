"""Pure: finds what differs between the arms of a sweep besides speculation.

It compares the command lines that would run, not what the sweep declares, so that it also finds what an
engine adds by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mtpbench.engines import abouts, engine_of
from mtpbench.errors import UnsupportedError
from mtpbench.records import Arm, Hardware, Point, Process, WorkerRole

_IS_SPECULATION = ("spec", "draft", "accept")
"""Parts of option names that mean speculation; each engine's module has its own."""


class ArmConfound(NamedTuple):
    """An arm's confound is what it differs in beyond speculation: a sentence, which names the arm itself."""

    arm: str
    text: str


def find_confounds(points: Sequence[Point], baseline: str, hardware: Hardware) -> tuple[ArmConfound, ...]:
    """Returns one sentence for each difference of an arm from the baseline that is not speculation."""
    by_arm: dict[str, list[Point]] = {}
    for point in points:
        by_arm.setdefault(point.arm.name, []).append(point)
    base = by_arm.pop(baseline, [])
    found: list[ArmConfound] = []
    for name, others in by_arm.items():
        if base:
            sentences = [
                *_checkpoints(base[0], others[0], by_arm),
                *_ladders(base, others, baseline, name),
                *_settings(others, base[0].arm, name, hardware),
            ]
            found += [ArmConfound(name, sentence) for sentence in sentences]
    return tuple(dict.fromkeys((*found, *find_stand_ins(points))))


def find_stand_ins(points: Sequence[Point]) -> tuple[ArmConfound, ...]:
    """Returns one sentence for each arm whose steps the embedded engine plays at another method's cost."""
    return tuple(
        dict.fromkeys(
            ArmConfound(
                point.arm.name,
                f"{point.arm.name}: the profile {point.simulation.profile} has no step costs of "
                f"{point.arm.speculation.method}; those of {point.simulation.step_costs} with as many drafts "
                f"stand in and are no prediction of {point.arm.speculation.method}",
            )
            for point in points
            if point.simulation and point.simulation.step_costs and point.arm.speculation
        )
    )


def _checkpoints(base: Point, other: Point, by_arm: Mapping[str, Sequence[Point]]) -> list[str]:
    """Returns that an arm serves another checkpoint, and which arm without drafts serves that one too."""
    if base.checkpoint == other.checkpoint:
        return []
    sharing = [
        name
        for name, points in by_arm.items()
        if points[0].checkpoint == other.checkpoint and not points[0].draft_tokens
    ]
    named = f"{other.arm.name} serves {other.checkpoint} instead of {base.checkpoint}"
    twin = next((name for name in sharing if name != other.arm.name), None)
    return [f"{named}; without drafts, {twin} serves it too" if twin else named]


def _ladders(base: Sequence[Point], others: Sequence[Point], baseline: str, name: str) -> list[str]:
    sentences = []
    sides = [{(p.topology.name, p.concurrency) for p in side} for side in (base, others)]
    for side, other_side, arm, other_arm in (
        (sides[0], sides[1], baseline, name),
        (sides[1], sides[0], name, baseline),
    ):
        only = sorted(side - other_side)
        if only:
            topologies = sorted({t for t, _ in only} - {t for t, _ in other_side})
            where = f" on {', '.join(topologies)}" if topologies else ""
            count = f"{len(only)} of {len(side)} points"
            sentences.append(f"{count} of {arm} have no counterpart in {other_arm}{where}")
    return sentences


def _settings(others: Sequence[Point], base: Arm, name: str, hardware: Hardware) -> list[str]:
    differences: dict[str, set[str]] = {}
    for other in {point.deployment_key: point for point in others}.values():
        # What differs by the checkpoint is said once, by its name.
        twin = dataclasses.replace(other, arm=dataclasses.replace(base, checkpoint=other.arm.checkpoint))
        try:
            pair = [engine_of(point).deploy(point, hardware).processes for point in (twin, other)]
            narrower = [*_less_room(twin, other)]
        except UnsupportedError:
            continue
        for role, sentence in narrower:
            differences.setdefault(sentence, set()).add(role)
        for base_process, process in zip(*pair, strict=True):
            for sentence in compare_processes(base_process, process):
                differences.setdefault(sentence, set()).add(base_process.role)
    return [f"{name} on {' and '.join(sorted(roles))}: {text}" for text, roles in differences.items()]


def _less_room(base: Point, other: Point) -> Iterator[tuple[WorkerRole, str]]:
    """Yields by role the options that have room for fewer sequences with the drafts of the other side."""
    room = engine_of(other).ABOUT.step_room
    for group in other.topology.groups if room is not None else ():
        assert room is not None
        before, after = room(base, group.role), room(other, group.role)
        for option in before:
            if after[option] < before[option]:
                yield (
                    group.role,
                    f"--{option} has room for {after[option]} sequences with their drafts instead of "
                    f"{before[option]} (set it for the deepest arm in `engine.flags`)",
                )


def compare_processes(base: Process, other: Process) -> list[str]:
    """Returns the options, environment and file lines in which two processes differ, without speculation."""
    sentences = []
    speculation = (*_IS_SPECULATION, *(part for about in abouts() for part in about.speculation))
    for kind, base_values, other_values in (
        ("", _options(base.argv), _options(other.argv)),
        ("environment ", dict(base.env), dict(other.env)),
        ("file ", _lines(base), _lines(other)),
    ):
        for key in dict.fromkeys((*base_values, *other_values)):
            before, after = base_values.get(key), other_values.get(key)
            if before == after or any(part in key.lower() for part in speculation):
                continue
            sentences.append(f"{kind}{key} is {_value_text(after)} instead of {_value_text(before)}")
    return sentences


def _value_text(value: str | None) -> str:
    return "absent" if value is None else (value or "set")


def _options(argv: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for i, word in enumerate(argv):
        if word.startswith("--"):
            following = argv[i + 1] if i + 1 < len(argv) else "--"
            options[word] = "" if following.startswith("--") else following
    return options


def _lines(process: Process) -> dict[str, str]:
    """Returns the top-level lines of generated YAML; nested lines count as part of the key above them."""
    lines: dict[str, str] = {}
    for file in process.files:
        if any(part in file.path for part in _IS_SPECULATION):
            continue
        key = ""
        for line in file.text.splitlines():
            if line and not line[0].isspace():
                key, _, value = line.partition(":")
                lines[key] = value.strip()
            elif key:
                lines[key] = f"{lines[key]} {line.strip()}".strip()
    return lines
