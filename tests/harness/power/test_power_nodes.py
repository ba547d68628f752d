"""What samplers on several nodes wrote, put together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mtpbench.metrics.energy import measure_energy
from mtpbench.metrics.window import Window
from mtpbench.power.log import (
    MeterReading,
    MeterState,
    SourceProbe,
    head_line,
    parse,
    states_line,
    tick_line,
    unread,
)
from mtpbench.power.nodes import (
    NodeLog,
    conditions,
    gather,
    gpus_of_node,
    held_by_node,
    hindrances,
    read_past,
    readings,
)
from mtpbench.records import Deployment, GpuCondition, PowerSource, Process, Reason

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
SOURCE = PowerSource(meter="nvml", counter=True, power="instant", scope="gpu")
NO_GRACE = SourceProbe(kind="grace", reason=unread("no_grace", "none"))


def rails(rail: str) -> SourceProbe:
    source = PowerSource(meter="grace", scope="grace", rail=rail)
    return SourceProbe(kind="grace", source=source, meters=((0, rail),))


def log(
    gpus: int,
    *,
    ahead_s: float = 0.0,
    source: PowerSource = SOURCE,
    reason: Reason | None = None,
    uuid: str = "GPU-0",
    grace: SourceProbe = NO_GRACE,
):
    """10 s of 500 W for each GPU, stamped by a clock that is ahead."""
    probe = SourceProbe(
        kind="nvml",
        source=source if reason is None else None,
        meters=tuple((i, f"GPU-{i}") for i in range(gpus)),
        reason=reason,
    )
    text = head_line([probe, grace], 0.1)
    for step in range(101):
        rows = [MeterReading(meter=i, power_w=500.0, energy_j=50.0 * step) for i in range(gpus)]
        text += tick_line(1000 + ahead_s + step / 10, 5e8, "gpu", rows)
        if grace.reason is None:
            rail = MeterReading(meter=0, power_w=150.0 + step % 2, energy_j=None)
            text += tick_line(1000 + ahead_s + step / 10, 5e8, "grace", [rail])
    state = MeterState(meter=0, uuid=uuid, temperature_c=61.0, limit_w=1000.0, clock_reasons=0x204)
    return parse(text + states_line(7e5, 1000.0, [state]))


def at(made, offset_s: float = 0.0) -> NodeLog:
    return NodeLog(log=made, offset_s=offset_s)


def test_the_gpus_of_a_node_are_those_that_it_holds_or_all_that_are_ours_there():
    first, second = NODES
    assert (first.names, first.owners) == (("2", "3"), {0: "prefill-0", 1: "prefill-0"})
    assert (second.node, second.names) == (1, ("0",))
    ours = gpus_of_node(0, {2: "a", 3: "b"}, ("4", "5", "6", "7", "MIG-1"))
    assert (ours.names, ours.owners, ours.spares) == (("6", "7"), {0: "a", 1: "b"}, ("4", "5"))


def test_nodes_are_placed_on_the_clients_clock():
    logs = {0: at(log(2)), 1: at(log(1, ahead_s=3600.0), 3600.0)}
    got, found = gather(NODES, logs), readings(NODES, logs, 1001.0)
    assert (got.source, got.reason) == (SOURCE, None)
    assert {(s.process, s.gpu) for s in found} == {("prefill-0", 0), ("prefill-0", 1), ("decode-0", 0)}
    energy = measure_energy(found, Window(start_s=0.0, end_s=8.0), 3, 9.0, 5.0, got.source)
    assert energy.energy_j == pytest.approx(3 * 500 * 8)


def test_a_clock_that_was_not_measured_shows_as_uncovered():
    found = readings(NODES, {0: at(log(2)), 1: at(log(1, ahead_s=3600.0))}, 1001.0)
    energy = measure_energy(found, Window(start_s=0.0, end_s=8.0), 3, 9.0, 5.0, SOURCE)
    assert energy.reason.code == "power_not_covered"


@pytest.mark.parametrize(
    ("logs", "reason"),
    [
        ({0: log(2)}, "node_missing: the sampler of node 1 left no file"),
        ({0: log(2), 1: log(1, source=replace(SOURCE, counter=False))}, "mixed_sources: nvml energy counter"),
        ({0: log(2), 1: log(1, reason=unread("mig", "GPU 0: MIG is on"))}, "mig: GPU 0: MIG is on (node 1)"),
        ({0: log(2), 1: log(1, uuid="GPU-9")}, "gpu_swapped: GPU 0 was GPU-0 and became GPU-9 (node 1)"),
    ],
)
def test_a_part_never_passes_for_the_whole(logs, reason):
    got = gather(NODES, {node: at(made) for node, made in logs.items()})
    assert got.source is None
    assert str(got.reason).startswith(reason)


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


def test_the_extremes_of_what_was_said_are_kept():
    text = head_line([SourceProbe(kind="nvml", source=SOURCE, meters=((0, "GPU-0"),)), NO_GRACE], 0.1)
    for heat, cap, mask in ((61, 1000.0, 4), (83, 900.0, 0x40), (70, 1200.0, 0)):
        state = MeterState(meter=0, uuid="GPU-0", temperature_c=heat, limit_w=cap, clock_reasons=mask)
        text += states_line(1.0, 1.0, [state])
    (gpu,) = conditions(parse(text), {0: "decode-0"}, 0)
    assert (gpu.temperature_max_c, gpu.power_cap_min_w, gpu.power_cap_max_w) == (83, 900.0, 1200.0)
    assert gpu.clock_reasons == ("sw_power_cap", "hw_thermal_slowdown")
    assert hindrances((gpu,)) == (
        "GPU decode-0/0: clocks were held back by hw_thermal_slowdown, up to 83 °C",
    )


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (rails("grace"), None),
        (rails("cpu"), "grace_mixed"),
        (SourceProbe(kind="grace", reason=unread("grace_rails", "no rail")), "grace_missing"),
    ],
)
def test_rails_that_not_all_nodes_have_alike_make_no_figure(second, reason):
    logs = {0: at(log(2, grace=rails("grace"))), 1: at(log(1, grace=second))}
    got = gather(NODES, logs)
    assert (got.reason, got.grace_reason) == (None, reason)
    found = readings(NODES, logs, 1001.0, grace=reason is None)
    energy = measure_energy(found, Window(start_s=0.0, end_s=8.0), 3, 9.0, 5.0, got.source)
    assert energy.energy_j == pytest.approx(12_000)
    assert (energy.grace_energy_j is None) == (reason is not None)


def test_a_source_that_never_said_anything_is_none():
    silent = log(1)
    quiet = replace(silent, ticks=())
    got = gather(NODES, {0: at(log(2)), 1: at(quiet)})
    assert got.reason == unread("no_reading", "GPU 0 told nothing (node 1)")


def test_every_held_gpu_has_to_be_read_past_the_edge():
    logs = {0: at(log(2)), 1: at(log(1, ahead_s=3600.0), 3600.0)}
    assert read_past(NODES, logs, 1009.9)
    assert not read_past(NODES, logs, 1010.1)
    assert not read_past(NODES, {0: at(log(2)), 1: at(log(1), 3600.0)}, 1009.9)
    assert not read_past(NODES, {0: at(log(2))}, 1000.0)
