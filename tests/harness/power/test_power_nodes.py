"""What samplers on several nodes wrote, put together."""

from __future__ import annotations

import pytest

from mtpbench.power.conditions import conditions, hindrances
from mtpbench.power.energy import measure_energy
from mtpbench.power.log import head_line, parse, states_line, tick_line
from mtpbench.power.nodes import NodeLog, gather, gpus_of_node, held_by_node
from mtpbench.power.source import MeterReading, MeterState, Probe
from mtpbench.records import Deployment, GpuCondition, Process
from mtpbench.window import Window

DEPLOYMENT = Deployment(
    key="k",
    processes=(
        Process(name="router", role="router", argv=("x",)),
        Process(name="prefill-0", role="prefill", argv=("x",), node=0, gpus=(2, 3)),
        Process(name="decode-0", role="decode", argv=("x",), node=1, gpus=(0,)),
    ),
    front="router",
    front_port="http",
    model_name="m",
    gpus=3,
    nodes=2,
)
NODES = [gpus_of_node(node, held, None) for node, held in held_by_node(DEPLOYMENT).items()]
SAYS = "nvml energy counter, instant power, GPU scope"


def log(gpus: int, *, ahead_s: float = 0.0, says: str = SAYS, reason: str | None = None, uuid: str = "GPU-0"):
    """10 s of 500 W for each GPU, stamped by a clock that is ahead."""
    probe = Probe(
        source="nvml",
        says=says,
        scope="gpu",
        meters=tuple((i, f"GPU-{i}") for i in range(gpus)),
        reason=reason,
    )
    text = head_line([probe, Probe(source="grace", reason="no_grace: none")], 0.1)
    for step in range(101):
        rows = [MeterReading(meter=i, power_w=500.0, energy_j=50.0 * step) for i in range(gpus)]
        text += tick_line(1000 + ahead_s + step / 10, 5e8, "gpu", rows)
    state = MeterState(meter=0, uuid=uuid, temperature_c=61.0, limit_w=1000.0, clock_reasons=0x204)
    return parse(text + states_line(7e5, 1000.0, [state]))


def at(made, offset_s: float = 0.0) -> NodeLog:
    return NodeLog(log=made, offset_s=offset_s)


def test_the_gpus_of_a_node_are_those_that_it_holds_or_all_that_are_ours_there():
    first, second = NODES
    assert (first.names, first.owners) == (("2", "3"), {0: "prefill-0", 1: "prefill-0"})
    assert (second.node, second.names) == (1, ("0",))
    ours = gpus_of_node(0, {2: "a", 3: "b"}, ("4", "5", "6", "7", "MIG-1"))
    assert (ours.names, ours.owners) == (("4", "5", "6", "7"), {2: "a", 3: "b"})


def test_nodes_are_placed_on_the_clients_clock():
    got = gather(NODES, {0: at(log(2)), 1: at(log(1, ahead_s=3600.0), 3600.0)}, 1001.0)
    assert (got.source, got.reason) == (SAYS, None)
    assert {(s.process, s.gpu) for s in got.samples} == {("prefill-0", 0), ("prefill-0", 1), ("decode-0", 0)}
    energy = measure_energy(got.samples, Window(start_s=0.0, end_s=8.0), 3, 9.0, 5.0, got.source)
    assert energy.energy_j == pytest.approx(3 * 500 * 8)


def test_a_clock_that_was_not_measured_shows_as_uncovered():
    got = gather(NODES, {0: at(log(2)), 1: at(log(1, ahead_s=3600.0))}, 1001.0)
    energy = measure_energy(got.samples, Window(start_s=0.0, end_s=8.0), 3, 9.0, 5.0, got.source)
    assert energy.reason == "power_not_covered"


@pytest.mark.parametrize(
    ("logs", "reason"),
    [
        ({0: log(2)}, "node_missing: the sampler of node 1 left no file"),
        ({0: log(2), 1: log(1, says="nvml, GPU scope")}, "mixed_sources: nvml energy counter"),
        ({0: log(2), 1: log(1, reason="mig: GPU 0: MIG is on")}, "mig: GPU 0: MIG is on; no_grace"),
        ({0: log(2), 1: log(1, uuid="GPU-9")}, "gpu_swapped: GPU 0 was GPU-0 and became GPU-9 (node 1)"),
    ],
)
def test_a_part_never_passes_for_the_whole(logs, reason):
    got = gather(NODES, {node: at(made) for node, made in logs.items()}, 1001.0)
    assert (got.samples, got.source) == ((), "none")
    assert got.reason.startswith(reason.removesuffix("; no_grace"))


def test_conditions_are_the_extremes_and_the_union_of_what_was_said():
    first, second = conditions(log(2), {0: "decode-0"}, 3)
    assert first == GpuCondition(
        name="decode-0/0",
        uuid="GPU-0",
        temperature_max_c=61.0,
        power_cap_min_w=1000.0,
        power_cap_max_w=1000.0,
        clock_reasons=("sw_power_cap", "0x200"),
    )
    # It said nothing of itself: unknown, not "no reasons".
    assert (second.name, second.clock_reasons, second.temperature_max_c) == ("unused@3/1", None, None)
    # A power cap is how such GPUs work; a hot one is a fault.
    assert hindrances((first, second)) == ()
