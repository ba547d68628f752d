"""The Slurm allocation that this process runs in: its job, its nodes, their addresses and GPUs.

    allocation_here(os.environ)      in a batch job, a step, or the shell of salloc
    call_roll(allocation, …)         what each node answers: a short program, run once on each

The environment names the job and its nodes; their addresses come from `scontrol`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import reprlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mtpbench.errors import InputError, RunError
from mtpbench.records import Process
from mtpbench.slurm import rollcall
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.job_steps import JobStep, StepOptions, srun_command
from mtpbench.store import replace_file

Ask = Callable[[Sequence[str]], str]
"""Runs one of Slurm's programs and returns its output; RunError where it failed."""

ROLL_CALL_TIMEOUT_S = 90.0
PATIENCE_S = 120.0
RETRY_S = 3.0
"""A controller that is busy or restarts answers again after a while; a job waits for that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """An allocation is what Slurm gave to a job: its nodes, their addresses, their GPUs.

    Args:
        job_id: as a user sees it: `12`, or `12_3` in an array.
        raw_id: the number by which Slurm's programs know the same job, array or not.
        restart: how many times Slurm started the job before.
        nodes: names, in Slurm's order.
        addresses: by node; other nodes reach its servers there.
        gpus_per_node: GPUs that the job holds on each node; None where Slurm names none.
        here: the node that this process runs on; None in a shell of salloc on a login node.
    """

    job_id: str
    raw_id: str
    restart: int
    nodes: tuple[str, ...]
    addresses: Mapping[str, str]
    gpus_per_node: int | None
    here: str | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], ask: Ask) -> Allocation:
        """Returns the allocation that the variables of the environment name.

        Args:
            environment: the environment of this process.
            ask: runs `scontrol`.

        Raises:
            InputError: this is no allocation; the message says how to get one.
            RunError: Slurm does not answer.
        """
        raw_id = environment.get("SLURM_JOB_ID") or environment.get("SLURM_JOBID")
        node_list = environment.get("SLURM_JOB_NODELIST") or environment.get("SLURM_NODELIST")
        if not raw_id or not node_list:
            raise InputError(
                "this is no Slurm allocation (SLURM_JOB_ID is not set): get one with `salloc --nodes=N "
                "--gres=gpu:M` and run this inside, or give the sweep to Slurm with "
                "`mtpbench submit SWEEP --cluster NAME`"
            )
        nodes = expand_nodes(node_list)
        return cls(
            job_id=job_id_of(environment),
            raw_id=raw_id,
            restart=_whole(environment.get("SLURM_RESTART_COUNT")) or 0,
            nodes=nodes,
            addresses=_addresses(nodes, node_list, ask),
            gpus_per_node=_gpus_per_node(environment, raw_id, len(nodes), ask),
            here=environment.get("SLURMD_NODENAME"),
        )


def allocation_here(environment: Mapping[str, str]) -> Allocation:
    """Returns the allocation that this process runs in.

    Raises:
        InputError: it runs in none.
        RunError: Slurm does not answer.
    """
    slurm = Slurm(environment)
    return Allocation.from_environment(environment, lambda argv: slurm.ask(*argv))


def job_id_of(environment: Mapping[str, str]) -> str:
    """Returns the job's id as a user sees it: `12_3` for a task of an array."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return environment.get("SLURM_JOB_ID") or environment.get("SLURM_JOBID") or ""


def expand_nodes(text: str) -> tuple[str, ...]:
    """Returns the single names that a node list holds, in their order: `n[0-2,7],gpu-[001-002]-x`.

    Raises:
        InputError: the brackets don't match, or hold no ranges.
    """
    names = tuple(islice((name for part in _split(text) for name in _expand(part)), MOST_NODES + 1))
    if len(names) > MOST_NODES:
        raise InputError(f"{reprlib.repr(text)}: more than {MOST_NODES:,} nodes")
    return names


def _split(text: str) -> Iterator[str]:
    """Returns the parts between those commas that are outside of brackets."""
    entries, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and not depth:
            entries.append("")
        else:
            entries[-1] += character
    if depth or not all(entries):
        raise InputError(f"{reprlib.repr(text)} is no list of nodes as Slurm writes them, such as n[0-2],m1")
    yield from entries


def _expand(part: str) -> Iterator[str]:
    """Yields the single names of one part of a node list."""
    before, bracket, rest = part.partition("[")
    if not bracket:
        yield part
        return
    ranges, _, after = rest.partition("]")
    for numbers in ranges.split(","):
        match = _RANGE.fullmatch(numbers)
        first, last = (match[1], match[2] or match[1]) if match is not None else ("1", "0")
        if not 0 <= int(last) - int(first) < MOST_NODES or part.count("[") > MOST_RANGES:
            raise InputError(
                f"{reprlib.repr(part)}: {reprlib.repr(numbers)} is no range of nodes such as 001-004"
            )
        for number in range(int(first), int(last) + 1):
            for tail in _expand(after) if after else ("",):
                yield f"{before}{number:0{len(first)}d}{tail}"


MOST_NODES, MOST_RANGES = 65_536, 4
"""Nodes of one range, and ranges in one name (`rack[1-4]node[01-18]`)."""
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_NODE = re.compile(r"^NodeName=(?P<name>\S+)(?P<rest>.*)$", re.MULTILINE)
_ADDRESS = re.compile(r"\bNodeAddr=(\S+)")


def node_addresses(text: str) -> Mapping[str, str]:
    """Returns addresses by node from `scontrol -o show node`; a node without one is its own name."""
    addresses = {}
    for node in _NODE.finditer(text):
        address = _ADDRESS.search(node["rest"])
        addresses[node["name"]] = address[1] if address else node["name"]
    return addresses


def _addresses(nodes: Sequence[str], node_list: str, ask: Ask) -> Mapping[str, str]:
    addresses = node_addresses(_patiently(ask, ("scontrol", "-o", "show", "node", node_list)))
    return {node: addresses.get(node, node) for node in nodes}


_JOB_GPUS = re.compile(r"\bgres/gpu=([0-9]{1,9})")
_NODE_GPUS = re.compile(r"\bTresPerNode=\S*?gpu(?::[^:\s,]+)?:([0-9]{1,9})(?=[\s,]|$)")


def _gpus_per_node(environment: Mapping[str, str], raw_id: str, nodes: int, ask: Ask) -> int | None:
    for name in ("SLURM_GPUS_ON_NODE", "SLURM_GPUS_PER_NODE"):
        if gpus := _whole(environment.get(name, "").rpartition(":")[2]):
            return gpus
    return job_gpus_per_node(_patiently(ask, ("scontrol", "-o", "show", "job", raw_id)), nodes)


def job_gpus_per_node(text: str, nodes: int) -> int | None:
    """Returns the GPUs on each node from the output of `scontrol -o show job`; None where it names none."""
    if match := _NODE_GPUS.search(text):
        return int(match[1])
    match = _JOB_GPUS.search(text)
    return int(match[1]) // nodes if match else None


def _whole(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,9}", text) else None


def _patiently(ask: Ask, argv: Sequence[str]) -> str:
    """Asks again, for up to `PATIENCE_S`, while Slurm does not answer."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask(argv)
        except RunError:
            if time.monotonic() > deadline:
                raise
        time.sleep(RETRY_S)


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A node answers the roll call with its address and the GPUs that a step sees there."""

    name: str
    address: str
    visible_gpus: tuple[str, ...]


def call_roll(
    allocation: Allocation, options: StepOptions, slurm: Slurm, directory: Path
) -> tuple[Node, ...]:
    """Runs one step on all nodes and returns what each is: its address, its GPUs, whether it sees our files.

    Args:
        allocation: the job and its nodes.
        options: how the cluster's owner wants steps to be started.
        slurm: runs the step, for this job.
        directory: a folder that every node should see.

    Raises:
        InputError: a node does not see `directory`, or lacks the network interface.
        RunError: a node does not answer.
    """
    token = secrets.token_hex(8)
    token_file = directory / "roll-call"
    replace_file(token_file, token, sync=False, parents=True)
    interface = options.interface or ""
    program = Path(rollcall.__file__).read_text("utf-8")
    argv = (options.python, "-I", "-c", program, str(token_file), token, interface)
    process = Process(name="roll-call", role="router", argv=argv)
    step = JobStep(
        name=f"roll-call.{token}",
        nodes=allocation.nodes,
        process=process,
        gpus=allocation.gpus_per_node,
    )
    # Without --mpi: as many tasks as nodes here are no MPI program.
    command = srun_command(step, dataclasses.replace(options, mpi="none"))
    output = slurm.ask(*command, timeout_s=ROLL_CALL_TIMEOUT_S)
    answers = {str(answer.get("node")): answer for answer in _answers(output)}
    return tuple(_node(name, answers.get(name), allocation, options, directory) for name in allocation.nodes)


def _node(
    name: str,
    answer: Mapping[str, object] | None,
    allocation: Allocation,
    options: StepOptions,
    directory: Path,
) -> Node:
    if answer is None:
        raise RunError(f"node {name} did not answer the roll call")
    if not answer.get("sees"):
        raise InputError(
            f"node {name} ({answer.get('host')}) does not see {directory}: results have to be on a "
            "filesystem that all nodes share; choose another --results folder"
        )
    address = answer.get("address")
    if options.interface and not address:
        raise InputError(
            f"node {name}: network interface {options.interface!r} has no IPv4 address "
            f"({answer.get('no_address')}); set network_interface in the cluster's profile"
        )
    visible = str(answer.get("visible_gpus") or "")
    return Node(
        name=name,
        address=str(address or allocation.addresses[name]),
        visible_gpus=tuple(gpu for gpu in visible.split(",") if gpu),
    )


def refuse_loopback(nodes: Sequence[Node]) -> None:
    """Raises InputError where some nodes' addresses, but not all, are loopback ones such as 127.0.1.1.

    The other nodes of a deployment can't reach them.
    """
    local = [node for node in nodes if _is_loopback(node.address)]
    if local and len(local) < len(nodes):
        raise InputError(
            f"node {local[0].name}: its address {local[0].address} means this machine alone; set "
            "network_interface in the cluster's profile"
        )


def _is_loopback(address: str) -> bool:
    try:
        return socket.gethostbyname(address).startswith("127.")
    except (OSError, ValueError):  # no such host, or no host's name
        return False


def _answers(text: str) -> list[Mapping[str, object]]:
    answers: list[Mapping[str, object]] = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                answers.append(answer)
    return answers
