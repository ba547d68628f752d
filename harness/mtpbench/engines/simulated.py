"""The embedded engine as processes: `python -m mtpbench.simengine.server`, one per worker, and a router.

One aggregated worker answers HTTP itself; several, or prefill and decode workers, stand behind a router.
Options by role: `max-running`, `prefill-chunk-tokens`, `stream-interval`, `kv-tokens`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtpbench.engines.about import About
from mtpbench.engines.parts import (
    PlacedWorker,
    assemble,
    env_of_role,
    node_count,
    of_role,
    place,
    spec_counters,
)
from mtpbench.errors import UnsupportedError
from mtpbench.records import (
    MAX_SPEED,
    Deployment,
    EngineLimits,
    Fault,
    Hardware,
    Point,
    Probe,
    Process,
    Role,
    Simulation,
    SpecCounters,
    WorkerGroup,
    WorkerRole,
    to_json,
)
from mtpbench.served import MOST_POSITIONS, metrics
from mtpbench.simengine.drafting import Drafting, drafting_of
from mtpbench.simengine.faults import check_fault
from mtpbench.simengine.profile import load_profile
from mtpbench.simengine.worker_model import make_worker

ABOUT = About(title=None, simulates=True)
RESET_PATH: str | None = "/reset_prefix_cache"
_FLAGS = ("max-running", "prefill-chunk-tokens", "stream-interval", "kv-tokens")
_ROUTER = "router"
_POWER = "mtpbench_sim_gpu_power_watts"
_ENERGY = "mtpbench_sim_gpu_energy_joules_total"


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuPower:
    """The power and the energy counter of one simulated GPU; NULL where its process does not report them."""

    gpu: int
    power_w: float | None
    energy_j: float | None


def check(point: Point, hardware: Hardware) -> None:
    """Raises an error for what the embedded engine can't play: no profile, no rates, too fast, bad options.

    Raises:
        UnsupportedError: says what, and what would be right.
        InputError: the profile is unknown or has no table for a layout.
    """
    simulation = _simulation(point)
    place(point.topology, hardware.gpus_per_node)
    if not 0 < simulation.speed <= MAX_SPEED:
        raise UnsupportedError(
            f"speed {simulation.speed:g}: the scaled clock runs at most {MAX_SPEED:g} times as fast as the "
            "real one; use clock: virtual for more"
        )
    for fault in simulation.faults:
        check_fault(fault)
    profile, drafting, by_role = load_profile(simulation.profile), drafting_of(point), limits(point)
    for group in point.topology.groups:
        make_worker(group, profile, by_role[group.role], drafting, [0])


def limits(point: Point) -> Mapping[WorkerRole, EngineLimits]:
    """Returns the limits that the options set; defaults are per rank: 1024 sequences, 8192 tokens."""
    return {group.role: _limits_of(point, group) for group in point.topology.groups}


def counters(metrics_text: str) -> SpecCounters | None:
    """Returns the four `vllm:spec_decode_*` counters; None when speculation is off."""
    return spec_counters(metrics_text, "vllm:")


def simulated_power(metrics_text: str) -> list[GpuPower]:
    """Returns power and energy of every GPU that a process of the embedded engine reports, ordered by index.

    Raises:
        ValueError: the text is not Prometheus's exposition format, or a value can be none of its kind.
    """
    power: dict[int, float] = {}
    energy: dict[int, float] = {}
    for metric in metrics(metrics_text, (_POWER, _ENERGY)):
        values = {_POWER: power, _ENERGY: energy}.get(metric.name)
        if values is not None:
            values[metric.whole("gpu", MOST_POSITIONS)] = metric.amount
    gpus = sorted(power | energy)
    return [GpuPower(gpu=gpu, power_w=power.get(gpu), energy_j=energy.get(gpu)) for gpu in gpus]


def deploy(point: Point, hardware: Hardware) -> Deployment:
    """Returns one process per worker, on the node of its first GPU, and a router where there are several."""
    simulation = _simulation(point)
    workers = place(point.topology, hardware.gpus_per_node)
    front = workers[0].name if len(workers) == 1 else _ROUTER
    # Another start draws other acceptances and faults, as it would on a real engine.
    seed = point.launch * (len(workers) + 1)
    processes = [_worker(point, seed + i, worker, front) for i, worker in enumerate(workers)]
    if front == _ROUTER:
        processes.insert(0, _router(point, seed + len(workers), workers))
    return dataclasses.replace(assemble(point, processes, node_count(workers)), time_scale=_speed(simulation))


def _simulation(point: Point) -> Simulation:
    if point.simulation is None:
        raise UnsupportedError("the embedded engine needs a profile to take its step costs from")
    return point.simulation


def _speed(simulation: Simulation) -> float:
    return simulation.speed if simulation.clock == "scaled" else 1.0


def _drafting_options(drafting: Drafting) -> dict[str, Any]:
    """Returns the options of a worker that drafts; those that are as always are left out."""
    options: dict[str, Any] = {"acceptance-rates": ",".join(map(str, drafting.rates))}
    if drafting.shape != "by_position":
        options["acceptance-shape"] = drafting.shape
    if drafting.spread:
        options["acceptance-spread"] = drafting.spread
    if drafting.depth:
        rows = [[r.first, r.last, r.draft_tokens] for r in drafting.depth.ranges]
        options["draft-depth"] = json.dumps(rows, separators=(",", ":"))
    if drafting.costs != "mtp":
        options["draft-costs"] = drafting.costs
    return options


def _limits_of(point: Point, group: WorkerGroup) -> EngineLimits:
    flags = of_role(point, group.role)
    if unknown := sorted(set(flags) - set(_FLAGS)):
        raise UnsupportedError(
            f"the embedded engine has no option {', '.join(unknown)} ({group.role}); "
            f"valid: {', '.join(_FLAGS)}"
        )
    for name, value in flags.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 10**9:
            raise UnsupportedError(
                f"the embedded engine's {name} ({group.role}) is a whole number above 0, not {value!r}"
            )
    return EngineLimits(
        max_running=flags.get("max-running", 1024 * group.dp),
        prefill_chunk_tokens=flags.get("prefill-chunk-tokens", 8192 * group.dp),
        stream_interval=flags.get("stream-interval", 1),
        kv_tokens=flags.get("kv-tokens"),
    )


def _worker(point: Point, seed: int, worker: PlacedWorker, front: str) -> Process:
    simulation, group, allowed = _simulation(point), worker.group, _limits_of(point, worker.group)
    options: dict[str, Any] = {
        "name": worker.name,
        "role": worker.role,
        "profile": simulation.profile,
        "tp": group.tp,
        "dp": group.dp,
        "ep": group.ep,
        "max-running": allowed.max_running,
        "prefill-chunk-tokens": allowed.prefill_chunk_tokens,
        "stream-interval": allowed.stream_interval,
        "seed": seed,
    }
    if allowed.kv_tokens is not None:
        options["kv-tokens"] = allowed.kv_tokens
    if worker.role != "prefill" and (drafting := drafting_of(point)):
        options |= _drafting_options(drafting)
    faults = [f for f in simulation.faults if f.role == worker.role or (not f.role and worker.name == front)]
    return _process(point, worker.name, worker.role, options, faults, worker)


def _router(point: Point, seed: int, workers: tuple[PlacedWorker, ...]) -> Process:
    def urls(role: WorkerRole) -> str:
        names = [worker.name for worker in workers if worker.role == role]
        return ",".join(f"http://@{{host:{name}}}:@{{port:{name}/http}}" for name in names)

    roles: tuple[WorkerRole, ...] = ("prefill", "decode", "aggregated")
    options = {"name": _ROUTER, "role": "router", "profile": _simulation(point).profile, "seed": seed}
    options |= {role: urls(role) for role in roles if urls(role)}
    faults = [fault for fault in _simulation(point).faults if fault.role in (None, "router")]
    return _process(point, _ROUTER, "router", options, faults, None)


def _process(
    point: Point,
    name: str,
    role: Role,
    options: Mapping[str, Any],
    faults: list[Fault],
    worker: PlacedWorker | None,
) -> Process:
    argv = ["@{python}", "-m", "mtpbench.simengine.server"]
    argv += ["--host", f"@{{host:{name}}}", "--port", f"@{{port:{name}/http}}"]
    argv += ["--model", point.model.served_name, "--speed", f"{_speed(_simulation(point)):g}"]
    for option, value in options.items():
        argv += [f"--{option}", str(value)]
    if faults:
        argv += ["--faults", json.dumps(to_json(faults), separators=(",", ":"))]
    return Process(
        name=name,
        role=role,
        argv=tuple(argv),
        env=env_of_role(point, worker.role) if worker else {},
        node=worker.shares[0].node if worker else 0,
        gpus=worker.shares[0].gpus if worker else (),
        ports=("http",),
        ready=Probe(port="http", path="/health", model=point.model.served_name),
        metrics=("http", "/metrics") if worker else None,
    )
