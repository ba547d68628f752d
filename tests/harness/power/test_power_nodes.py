"""Samplers on several nodes, and their files put together."""

from __future__ import annotations

import signal
import time

import pytest

from mtpbench.placeholders import Placement, resolve
from mtpbench.power.energy import measure_energy
from mtpbench.power.log import head_line, parse, states_line, tick_line
from mtpbench.power.nodes import gather, node_samplers
from mtpbench.power.source import MeterReading, MeterState, Probe
from mtpbench.records import Deployment, Process
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
SAYS = "nvml energy counter, instant power, GPU scope"


def log(gpus: int, *, ahead_s: float = 0.0, says: str = SAYS, reason: str | None = None, uuid: str = "GPU-0"):
    """10 s of 500 W for each GPU, stamped by a wall clock that is ahead, and a monotonic one of its own."""
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
        text += tick_line(7e5 + step / 10, 1000 + ahead_s + step / 10, "gpu", rows)
    return parse(text + states_line(7e5, 1000.0, [MeterState(meter=0, uuid=uuid)]))


def test_every_node_with_gpus_gets_a_sampler_of_its_own():
    first, second = node_samplers(DEPLOYMENT, 0.1)
    assert (first.name, first.node, second.node) == ("sampler-0", 0, 1)
    placement = Placement(hosts={}, ports={}, directory="/attempt", python="/python")
    assert resolve(first, placement).argv == (
        *("/python", "-m", "mtpbench.power.agent", "--detached", "--out", "/attempt/power-node0.jsonl"),
        *("--interval", "0.1", "--gpus", "2,3"),
    )


def test_nodes_are_placed_on_the_clients_clock():
    got = gather({0: log(2), 1: log(1, ahead_s=3600.0)}, DEPLOYMENT, 1001.0, {1: 3600.0})
    assert (got.source, got.reason) == (SAYS, None)
    assert {(s.process, s.gpu) for s in got.samples} == {("prefill-0", 0), ("prefill-0", 1), ("decode-0", 0)}
    energy = measure_energy(got.samples, Window(start_s=0.0, end_s=8.0), 3, 9.0, 5.0, got.source)
    assert energy.energy_j == pytest.approx(3 * 500 * 8)


def test_a_clock_that_was_not_measured_shows_as_uncovered():
    got = gather({0: log(2), 1: log(1, ahead_s=3600.0)}, DEPLOYMENT, 1001.0, {})
    energy = measure_energy(got.samples, Window(start_s=0.0, end_s=8.0), 3, 9.0, 5.0, got.source)
    assert energy.reason == "power_not_covered"


@pytest.mark.parametrize(
    ("logs", "reason"),
    [
        ({0: log(2)}, "node_missing: the sampler of node 1 left no file"),
        ({0: log(2), 1: log(1, says="nvml, GPU scope")}, "mixed_sources: nvml energy counter"),
        ({0: log(2), 1: log(1, reason="mig: GPU 0: MIG is on")}, "node 1: mig: GPU 0"),
        ({0: log(2), 1: log(1, uuid="GPU-9")}, "gpu_swapped: GPU 0 was GPU-0 and became GPU-9"),
    ],
)
def test_a_part_never_passes_for_the_whole(logs, reason):
    got = gather(logs, DEPLOYMENT, 1001.0, {})
    assert (got.samples, got.source) == ((), "none")
    assert got.reason.startswith(reason)


def test_a_detached_sampler_outlives_its_input_and_ends_at_sigterm(start_sampler, tmp_path):
    process = start_sampler(tmp_path / "log", "", "--detached")
    assert process.stdout.readline() == b"ready\n"
    process.stdin.close()
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    process.stdout.close()
    assert parse((tmp_path / "log").read_text()).ended == "SIGTERM"
