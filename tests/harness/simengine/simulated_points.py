"""Points and topologies for the embedded engine's tests."""

from __future__ import annotations

from mtpbench.records import (
    AcceptancePolicy,
    Arm,
    Engine,
    EngineLimits,
    Fault,
    Load,
    Measurement,
    Model,
    Point,
    Simulation,
    Speculation,
    Topology,
    WorkerGroup,
    Workload,
)

RATES = {0: (), 1: (0.79,), 2: (0.79, 0.48), 3: (0.79, 0.48, 0.22)}
LIMITS = {
    role: EngineLimits(max_running=8192, prefill_chunk_tokens=65536)
    for role in ("prefill", "decode", "aggregated")
}


def group(role: str, workers: int, layout: str) -> WorkerGroup:
    """`group("decode", 1, "DEP16")`."""
    width = int(layout.lstrip("DEPT"))
    if layout.startswith("DEP"):
        return WorkerGroup(role=role, workers=workers, tp=1, dp=width, ep=width)
    return WorkerGroup(role=role, workers=workers, tp=width)


def split(prefill: tuple[int, str], decode: tuple[int, str]) -> Topology:
    """Prefill and decode workers."""
    return Topology(groups=(group("prefill", *prefill), group("decode", *decode)))


def aggregated(workers: int, layout: str) -> Topology:
    """Aggregated workers."""
    return Topology(groups=(group("aggregated", workers, layout),))


def make_point(
    topology: Topology,
    concurrency: int,
    drafts: int,
    *,
    workload: Workload | None = None,
    load: Load | None = None,
    seed: int = 1,
    faults: tuple[Fault, ...] = (),
    speed: float = 1.0,
    flags: dict[str, dict[str, object]] | None = None,
) -> Point:
    """A point on the embedded engine with the golden acceptance rates."""
    rates = RATES[drafts]
    policy = AcceptancePolicy(mode="golden", length=1 + sum(rates), rates=rates)
    return Point(
        sweep="test",
        model=Model(path="m", served_name="m", precision="FP4"),
        hardware="gb200-nvl72",
        engine=Engine(name="simulated", flags=flags or {}),
        arm=Arm(
            name="mtp" if drafts else "off",
            speculation=Speculation(draft_tokens=drafts, acceptance=policy) if drafts else None,
        ),
        topology=topology,
        concurrency=concurrency,
        repeat=0,
        seed=seed,
        workload=workload or Workload(isl=1024, osl=128, range_ratio=0.8),
        load=load or Load(),
        measurement=Measurement(warmup_per_slot=1, requests_per_slot=3),
        simulation=Simulation(
            profile="dsv4-gb200", clock="scaled" if speed > 1 else "real", speed=speed, faults=faults
        ),
    )
