"""Pure: what only the executor knows, as named placeholders in argv, environment and files.

@{host:NAME}       the host that process NAME runs on
@{port:NAME/PORT}  the number chosen for port PORT of process NAME
@{dir}             the attempt's directory (files are laid down and logs written there)
@{python}          the Python that runs the harness (where the engine runs bare)
@{env:NAME}        the variable NAME of the environment that the executor starts processes in
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mtpbench.errors import InputError
from mtpbench.records import File, Process

_PLACEHOLDER = re.compile(r"@\{([^}]*)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """What the executor decided: hosts by process name, ports by (process, port name), directory, Python.

    `environment` holds the variables that it starts processes with, before each process's own.
    """

    hosts: Mapping[str, str]
    ports: Mapping[tuple[str, str], int]
    directory: str
    python: str
    environment: Mapping[str, str] = field(default_factory=dict)


def fill(text: str, placement: Placement) -> str:
    """`text` with every placeholder replaced.

    Raises:
        InputError: a placeholder is unknown, or names a process, port or variable that is not there.
    """

    def value(match: re.Match[str]) -> str:
        kind, _, rest = match[1].partition(":")
        process, _, port = rest.partition("/")
        if kind == "dir" and not rest:
            return placement.directory
        if kind == "python" and not rest:
            return placement.python
        if kind == "host" and process in placement.hosts:
            return placement.hosts[process]
        if kind == "port" and (process, port) in placement.ports:
            return str(placement.ports[process, port])
        if kind == "env" and rest:
            if rest not in placement.environment:
                raise InputError(f"{match[0]} needs the environment variable {rest}, which is not set")
            return placement.environment[rest]
        known = sorted(f"@{{port:{p}/{n}}}" for p, n in placement.ports)
        known += sorted(f"@{{host:{p}}}" for p in placement.hosts)
        raise InputError(
            f"unknown placeholder {match[0]}; known: @{{dir}}, @{{python}}, @{{env:NAME}}, {', '.join(known)}"
        )

    return _PLACEHOLDER.sub(value, text)


def resolve(process: Process, placement: Placement) -> Process:
    """The process with the placeholders of its argv, environment and files filled in."""
    return dataclasses.replace(
        process,
        argv=tuple(fill(word, placement) for word in process.argv),
        env={name: fill(value, placement) for name, value in process.env.items()},
        files=tuple(
            File(path=fill(file.path, placement), text=fill(file.text, placement)) for file in process.files
        ),
    )
