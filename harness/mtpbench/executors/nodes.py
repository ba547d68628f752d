"""The nodes of an allocation as they answer a roll call: a short program, run once on each."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtpbench.errors import InputError, RunError
from mtpbench.executors import rollcall
from mtpbench.executors.steps import Step, StepOptions, ask, srun_words
from mtpbench.records import Process
from mtpbench.slurm.allocation import Allocation

ROLL_CALL_TIMEOUT_S = 90.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A node as it answered the roll call: its name, its address, and the GPUs that a step sees there."""

    name: str
    address: str
    visible_gpus: tuple[str, ...]


def call_roll(
    allocation: Allocation, options: StepOptions, environment: Mapping[str, str], directory: Path
) -> tuple[Node, ...]:
    """Every node, asked once by a step on all of them: its address, its GPUs, whether it sees our files.

    Raises:
        InputError: a node does not see `directory`, or lacks the network interface.
        RunError: a node does not answer.
    """
    token = secrets.token_hex(8)
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "roll-call"
    file.write_text(token, "utf-8")
    interface = options.interface or ""
    text = Path(rollcall.__file__).read_text("utf-8")
    words = (options.python, "-I", "-c", text, str(file), token, interface)
    process = Process(name="roll-call", role="router", argv=words)
    step = Step(
        name=f"roll-call.{token}",
        nodes=allocation.nodes,
        process=process,
        gpus=allocation.gpus_per_node,
    )
    # Without --mpi: as many tasks as nodes here are no MPI program.
    said = ask(
        srun_words(step, dataclasses.replace(options, mpi="none")),
        environment,
        ROLL_CALL_TIMEOUT_S,
    )
    seen = {answer.get("node"): answer for answer in _answers(said)}
    return tuple(_node(name, seen.get(name), directory, (allocation, options)) for name in allocation.nodes)


def _node(
    name: str,
    answer: Mapping[str, object] | None,
    directory: Path,
    asked: tuple[Allocation, StepOptions],
) -> Node:
    allocation, options = asked
    if answer is None:
        raise RunError(f"node {name} did not answer the roll call")
    if not answer["sees"]:
        raise InputError(
            f"node {name} ({answer['host']}) does not see {directory}: results have to be on a filesystem "
            "that all nodes share; choose another --results folder"
        )
    if options.interface and not answer["address"]:
        raise InputError(
            f"node {name}: network interface {options.interface!r} has no IPv4 address "
            f"({answer['no_address']}); set network_interface in the cluster's profile"
        )
    visible = str(answer["visible_gpus"] or "")
    return Node(
        name=name,
        address=str(answer["address"] or allocation.addresses[name]),
        visible_gpus=tuple(word for word in visible.split(",") if word),
    )


def refuse_loopback(nodes: Sequence[Node]) -> None:
    """A node whose name means 127.0.1.1 on itself can't be reached from the others."""
    local = [node for node in nodes if _is_loopback(node.address)]
    if local and len(local) < len(nodes):
        raise InputError(
            f"node {local[0].name}: its address {local[0].address} means this machine alone; set "
            "network_interface in the cluster's profile"
        )


def _is_loopback(address: str) -> bool:
    try:
        return socket.gethostbyname(address).startswith("127.")
    except OSError:
        return False


def _answers(text: str) -> list[Mapping[str, object]]:
    found: list[Mapping[str, object]] = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                found.append(answer)
    return found
