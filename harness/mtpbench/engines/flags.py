"""Pure: engine options as a mapping, merged in layers and written as a command line."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mtpbench.records import Flags, Point, WorkerRole


def merged(*layers: Flags) -> Flags:
    """Later layers win; None takes an option away."""
    flat = {name: value for layer in layers for name, value in layer.items()}
    return {name: value for name, value in flat.items() if value is not None}


def of_role(point: Point, role: WorkerRole) -> Flags:
    """The options of one role: the base's, then what the arm forces."""
    return merged(point.engine.flags.get(role, {}), point.arm.forces.get(role, {}))


def env_of_role(point: Point, role: WorkerRole) -> Mapping[str, str]:
    """The environment of one role: the base's, then what the arm forces."""
    return {**point.engine.env.get(role, {}), **point.arm.forces_env.get(role, {})}


def as_argv(flags: Flags) -> tuple[str, ...]:
    """`--name value` pairs: True is a bare flag, False and None leave it out, mappings and lists are JSON."""
    argv: list[str] = []
    for name, value in flags.items():
        if value is None or value is False:
            continue
        argv.append(f"--{name}")
        if isinstance(value, (Mapping, list, tuple)):
            argv.append(json.dumps(value, separators=(",", ":")))
        elif value is not True:
            argv.append(str(value))
    return tuple(argv)
