"""The meter of a start: real samplers on the stand-in library, here and on what looks like another host."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from measured import make_point
from mtpbench import remote
from mtpbench.deployment import meter_at
from mtpbench.errors import RunError
from mtpbench.executors.local import LocalSite
from mtpbench.metrics.energy import measure_energy
from mtpbench.metrics.window import Window
from mtpbench.power import meter as meters
from mtpbench.power.log import Unread, parse
from mtpbench.power.meter import Meter, MeteredNode
from mtpbench.power.nodes import gpus_of_node, held_by_node
from mtpbench.records import Deployment, Process, Simulation
from mtpbench.remote import Host

AHEAD_S = 1000
FAR = ("unshare", "--time", "--monotonic", str(AHEAD_S), "--")
"""A namespace of its own for the monotonic clock: what another host's looks like from here."""


def deployment(*held: tuple[str, int, tuple[int, ...]]) -> Deployment:
    processes = tuple(
        Process(name=name, role=name.rsplit("-", 1)[0], argv=("x",), node=node, gpus=gpus)
        for name, node, gpus in held
    )
    return Deployment(
        key="k",
        processes=processes,
        front=processes[0].name,
        front_port="http",
        model_name="m",
        gpus=sum(len(p.gpus) for p in processes),
        nodes=1 + max(p.node for p in processes),
    )


TWO = deployment(("prefill-0", 0, (0,)), ("decode-0", 0, (1,)))


async def local_meter(directory: Path, deployed: Deployment = TWO) -> Meter:
    return await meter_at(LocalSite(), deployed, make_point(), directory)


async def run(meter: Meter, seconds: float = 0.0, during: Callable[[Meter], None] = lambda _: None) -> None:
    async with meter:
        await meter.begin()
        during(meter)
        await asyncio.sleep(seconds)
        await meter.end()


def pid_of(meter: Meter) -> int:
    sampler = meter._samplers[0]._helper
    assert sampler is not None
    return sampler.process.pid


async def test_a_point_is_metered_from_begin_to_end(on_standin: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with await local_meter(tmp_path) as meter:
        assert (str(meter.source), meter.reason) == ("nvml energy counter, instant power, GPU scope", None)
        await asyncio.sleep(0.3)
        called = time.perf_counter()
        await meter.begin()
        origin = time.perf_counter()
        await asyncio.sleep(0.6)
        await meter.end()
        ended_s = time.perf_counter() - origin
    found = meter.samples(origin)
    assert {(s.process, s.gpu) for s in found} == {("prefill-0", 0), ("decode-0", 1)}
    times = [s.time_s for s in found]
    whole = parse((tmp_path / "power-node0.jsonl").read_text())
    # The 0.3 s before `begin` are in the file; the point has the last reading of them at most, however late
    # a busy machine took it.
    earlier_s = [tick.monotonic_s - origin for tick in whole.ticks if tick.monotonic_s < called]
    assert len(earlier_s) >= 2
    assert earlier_s[-1] - 0.005 < min(times) < 0.1
    assert 0.5 < max(times) <= ended_s
    window = Window(start_s=min(times) + 0.05, end_s=max(times) - 0.05)
    got = measure_energy(found, window, 2, 100.0, 10.0, meter.source)
    assert got.mean_power_w_per_gpu == pytest.approx(550, rel=0.1)
    assert whole.ended == "told to end"
    assert len(whole.ticks) > len(found) / 2 + 4


async def test_points_follow_one_another_on_one_sampler(
    on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with await local_meter(tmp_path) as meter:
        pids = set()
        for _ in range(3):
            await meter.begin()
            pids.add(pid_of(meter))
            await asyncio.sleep(0.15)
            await meter.end()
            # Far fewer than all that the file holds by then: each point has its own part.
            assert len({s.time_s for s in meter.samples(0.0)}) >= 3
    assert len(pids) == 1
    assert [p.name for p in tmp_path.glob("*.jsonl")] == ["power-node0.jsonl"]


async def test_idle_power_is_read_over_the_whole_rest(on_standin: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with await local_meter(tmp_path) as meter:
        (idle,) = await meter.rest("loaded", 0.5)
    assert (idle.state, idle.reason) == ("loaded", None)
    assert idle.duration_s >= 0.5
    assert idle.power_w_per_gpu == pytest.approx(550, rel=0.1)


async def test_nobody_rests_where_nothing_can_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    async with await local_meter(tmp_path) as meter:
        began = time.monotonic()
        (idle,) = await meter.rest("before_start", 60.0)
        assert (idle.power_w_per_gpu, idle.reason) == (None, meter.reason)
        assert time.monotonic() - began < 30
    assert (meter.source, str(meter.reason)) == (None, "no_nvml: nvmlInit: NVML Shared Library Not Found")


async def test_the_embedded_engine_is_its_own_source(tmp_path: Path) -> None:
    meter = await meter_at(LocalSite(), TWO, make_point(simulation=Simulation(profile="p")), tmp_path)
    await run(meter)
    assert (str(meter.source), meter.reason, meter.samples(0.0)) == ("simulated", None, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("mig 1", "mig: GPU 0: MIG is on"),
        ("gpus 1", "no_gpu: GPU 1: Invalid Argument"),
        ("at 0 lost 0", "no_meter: GPU 0"),
    ],
)
async def test_what_can_not_be_metered_says_why_and_no_sampler_stays(
    on_standin: pytest.MonkeyPatch, tmp_path: Path, words: str, reason: str
) -> None:
    on_standin.setenv("MTPBENCH_FAKE_NVML", words)
    async with await local_meter(tmp_path) as meter:
        assert meter._samplers == []
        await meter.begin()
        await meter.end()
    assert (meter.source, meter.samples(0.0)) == (None, [])
    assert str(meter.reason).startswith(reason)


async def test_a_swapped_gpu_takes_the_source_away(on_standin: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_standin.setenv("MTPBENCH_FAKE_NVML", "at 600 swap 1")
    meter = await local_meter(tmp_path)
    await run(meter, 1.8)
    assert meter.source is None
    assert str(meter.reason).startswith("gpu_swapped: GPU 1")
    assert meter.samples(0.0) == []


async def test_a_sampler_that_died_is_told_what_it_read_is_kept_and_the_next_point_has_another(
    on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with await local_meter(tmp_path) as meter:
        await meter.begin()
        await asyncio.sleep(0.3)
        os.kill(pid_of(meter), signal.SIGKILL)
        await meter.end()
        assert "power sampler of node 0: it died (exit -9): no message" in meter.notes
        assert meter.reason is None
        assert len(meter.samples(0.0)) > 2
        await meter.begin()
        await asyncio.sleep(0.2)
        await meter.end()
        assert not [note for note in meter.notes if "power sampler" in note]
        assert len(meter.samples(0.0)) > 2
    assert sorted(p.name for p in tmp_path.glob("*.jsonl")) == ["power-node0.2.jsonl", "power-node0.jsonl"]


async def test_a_sampler_that_can_not_start_is_a_reason(
    on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpus = gpus_of_node(0, {0: "decode-0"}, None)
    broken = Host(name="n7", launch=("sh", "-c", "echo no such node >&2; exit 3"))
    async with Meter([MeteredNode(gpus=gpus, host=broken)], tmp_path) as meter:
        assert str(meter.reason) == "sampler_failed: it died (exit 3): no such node"
    missing = Host(name="n7", launch=("/nowhere/srun",))
    async with Meter([MeteredNode(gpus=gpus, host=missing)], tmp_path) as meter:
        assert str(meter.reason).startswith("sampler_failed: [Errno 2]")


async def test_a_clock_that_was_not_compared_is_not_known_to_within_anything(tmp_path: Path) -> None:
    """A far sampler whose helper can't be started: no offset stands for its clock, least of all 0 ± 0."""
    gpus = gpus_of_node(0, {0: "decode-0"}, None)
    far = Host(name="far", launch=("/nonexistent",))
    async with Meter([MeteredNode(gpus=gpus, host=far)], tmp_path) as meter:
        assert str(meter.reason).startswith("sampler_failed: ")
        assert not [note for note in meter.notes if "clock" in note]
    sampler = meters.HostSampler(gpus, far, tmp_path)
    await sampler.compare_again()
    assert sampler.clock_error_s is None
    with pytest.raises(RunError, match="its clock was not compared"):
        await sampler.look()


def far_is_possible() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*FAR, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not far_is_possible(), reason="no time namespaces here")
async def test_two_nodes_on_two_clocks_make_one_record(
    on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deployed = deployment(("prefill-0", 0, (0,)), ("decode-0", 1, (0, 1)))
    held = held_by_node(deployed)
    hosts = {0: Host(name=socket.gethostname()), 1: Host(name="far", launch=FAR)}
    nodes = [MeteredNode(gpus=gpus_of_node(n, held[n], None), host=hosts[n]) for n in held]
    async with Meter(nodes, tmp_path) as meter:
        await meter.begin()
        origin = time.perf_counter()
        await asyncio.sleep(0.6)
        await meter.end()
    assert meter.reason is None
    found = meter.samples(origin)
    assert {(s.process, s.gpu) for s in found} == {("prefill-0", 0), ("decode-0", 0), ("decode-0", 1)}
    # The far clock is 1000 s ahead; its readings are not.
    assert all(-0.2 < s.time_s < 2 for s in found)
    got = measure_energy(found, Window(start_s=0.1, end_s=0.5), 3, 9.0, 5.0, meter.source)
    assert got.energy_j == pytest.approx((500 + 500 + 600) * 0.4, rel=0.1)
    assert any(note.startswith("power: the clocks of 1 nodes are known to within") for note in meter.notes)


async def test_one_dead_node_takes_the_figure_of_all(on_standin: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = held_by_node(deployment(("prefill-0", 0, (0,)), ("decode-0", 1, (0,))))
    hosts = {0: Host(name="here"), 1: Host(name="there", launch=("false",))}
    nodes = [MeteredNode(gpus=gpus_of_node(n, held[n], None), host=hosts[n]) for n in held]
    async with Meter(nodes, tmp_path) as meter:
        assert (meter.source, str(meter.reason)) == (
            None,
            "sampler_failed: it died (exit 1): no message (node 1)",
        )


async def test_gpus_at_hand_that_nobody_uses_are_read_and_kept_apart(
    on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_standin.setenv("MTPBENCH_FAKE_NVML", "gpus 4")
    on_standin.setenv("CUDA_VISIBLE_DEVICES", "0,1,3")
    async with await local_meter(tmp_path, deployment(("decode-0", 0, (0, 1)))) as meter:
        await meter.begin()
        origin = time.perf_counter()
        await asyncio.sleep(0.5)
        await meter.end()
    got = measure_energy(meter.samples(origin), Window(start_s=0.1, end_s=0.4), 2, 9.0, 5.0, meter.source)
    assert got.energy_j == pytest.approx(1100 * 0.3, rel=0.1)
    assert got.unused_gpus == 1
    assert got.unused_energy_j == pytest.approx(800 * 0.3, rel=0.1)
    assert [gpu.name for gpu in meter.conditions] == ["decode-0/0", "decode-0/1", "unused@0/2"]


async def test_what_gpus_say_of_themselves_is_kept_and_a_hindrance_is_told(
    on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_standin.setenv("MTPBENCH_FAKE_NVML", "reasons 68")
    meter = await local_meter(tmp_path)
    await run(meter, 1.2)
    first = meter.conditions[0]
    assert first.clock_reasons == ("sw_power_cap", "hw_thermal_slowdown")
    assert first.power_cap_min_w == first.power_cap_max_w == 700
    assert first.temperature_max_c is not None
    assert first.uuid == "GPU-00000000-0000-0000-0000-000000000000"
    told = [note for note in meter.notes if "clocks were held back" in note]
    assert told[0].startswith("GPU prefill-0/0: clocks were held back by hw_thermal_slowdown, up to ")
    assert len(told) == 2


async def test_gpus_are_found_by_uuid(on_standin: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_standin.setenv("CUDA_VISIBLE_DEVICES", "GPU-00000000-0000-0000-0000-000000000001")
    meter = await local_meter(tmp_path, deployment(("decode-0", 0, (0,))))
    await run(meter, 0.1)
    assert meter.conditions[0].uuid == "GPU-00000000-0000-0000-0000-000000000001"
    assert {round(s.power_w or 0) for s in meter.samples(0.0)} == {600}


def test_the_sampler_ends_when_the_run_is_killed(on_standin: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """
import asyncio, sys
from pathlib import Path
from mtpbench.power.meter import Meter, MeteredNode
from mtpbench.power.nodes import gpus_of_node
from mtpbench import remote
from mtpbench.remote import Host
async def main():
    node = MeteredNode(gpus=gpus_of_node(0, {0: "decode-0"}, None), host=Host(name="here"))
    async with Meter([node], Path(sys.argv[1])) as meter:
        print(meter.source, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    run_ = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert run_.stdout is not None
    assert run_.stdout.readline().startswith("nvml energy counter")
    run_.kill()
    run_.communicate()
    (file,) = tmp_path.glob("*.jsonl")
    deadline = time.monotonic() + 10
    while '"end":"told to end"' not in file.read_text():
        assert time.monotonic() < deadline, "the sampler outlived its run"
        time.sleep(0.05)


def test_gpus_are_those_that_the_environment_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = deployment(("decode-0", 0, (0, 1)))

    def named() -> tuple[str, ...]:
        (node,) = LocalSite().metered(held, tmp_path)
        assert node.gpus.owners == {0: "decode-0", 1: "decode-0"}
        return node.gpus.names

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert named() == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert named() == ("4", "6")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1234, GPU-5678")
    assert named() == ("GPU-1234", "GPU-5678")
    for shown in ("4", "", "MIG-1,MIG-2"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        with pytest.raises(Unread, match=r"no_gpu: CUDA_VISIBLE_DEVICES=.*2 whole GPUs are needed"):
            named()
    with pytest.raises(Unread, match="holds no GPU"):
        LocalSite().metered(dataclasses.replace(deployment(("router-0", 0, ()))), tmp_path)


def test_a_gpu_that_two_processes_share_is_one_gpu() -> None:
    shared = deployment(("prefill-0", 0, (0,)), ("decode-0", 0, (0,)))
    assert gpus_of_node(0, held_by_node(shared)[0], None).owners == {0: "prefill-0+decode-0"}


async def test_an_answer_that_comes_late_is_taken_for_no_other(
    on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file server that hangs, or NVML: the sampler is given up, and the next points have another one."""
    on_standin.setattr(remote, "ANSWER_S", 1.0)
    async with await local_meter(tmp_path) as meter:
        await meter.begin()
        hung = pid_of(meter)
        os.kill(hung, signal.SIGSTOP)
        await meter.end()
        assert "power sampler of node 0: it did not answer 'tick' in 1 s: no message" in meter.notes
        for _ in range(3):
            await meter.begin()
            assert pid_of(meter) != hung
            await asyncio.sleep(0.15)
            await meter.end()
            assert (meter.reason, len({s.time_s for s in meter.samples(0.0)}) >= 3) == (None, True)
    assert not Path(f"/proc/{hung}").exists()


async def test_a_question_that_was_given_up_does_not_spoil_the_next(
    on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with await local_meter(tmp_path) as meter:
        for delay_s in (0.0, 0.0005, 0.001, 0.002, 0.004):
            given_up = asyncio.create_task(meter.begin())
            await asyncio.sleep(delay_s)
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            await meter.begin()
            await asyncio.sleep(0.1)
            await meter.end()
            assert meter.reason is None
            assert meter.samples(0.0)


async def test_a_meter_that_is_given_up_while_it_begins_leaves_nothing(
    on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meter = await local_meter(tmp_path)
    entering = asyncio.create_task(meter.__aenter__())
    while meter._samplers[0]._helper is None:
        await asyncio.sleep(0.01)
    pid = pid_of(meter)
    entering.cancel()
    await asyncio.gather(entering, return_exceptions=True)
    assert not Path(f"/proc/{pid}").exists()


async def test_a_slow_driver_gives_fewer_readings_and_not_none(
    on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_standin.setenv("MTPBENCH_FAKE_NVML", "gpus 4 slow_ms 40")
    async with await local_meter(tmp_path, deployment(("decode-0", 0, (0, 1, 2, 3)))) as meter:
        await meter.begin()
        origin = time.perf_counter()
        await asyncio.sleep(1.5)
        await meter.end()
    found = meter.samples(origin)
    # Each GPU is stamped when it was read, 40 ms after the one before it.
    first = sorted(s.time_s for s in found if s.gpu == 0)
    second = sorted(s.time_s for s in found if s.gpu == 1)
    assert all(0.03 < b - a < 0.4 for a, b in zip(first, second, strict=True))
    got = measure_energy(found, Window(start_s=0.2, end_s=1.2), 4, 9.0, 5.0, meter.source)
    assert got.energy_j == pytest.approx(2600, rel=0.1)


async def test_what_takes_half_a_second_to_read_is_of_no_moment(
    on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_standin.setenv("MTPBENCH_FAKE_NVML", "slow_ms 300")
    async with await local_meter(tmp_path, deployment(("decode-0", 0, (0,)))) as meter:
        assert str(meter.reason) == "no_reading: GPU 0 told nothing", meter.notes
        assert any(
            note.startswith("power: ") and "took up to 0.6 s and were left out" in note
            for note in meter.notes
        )


@pytest.mark.parametrize("words", ["mig_of 2", "hopper 2", "at 200 swap 2", "at 200 lost 2", "gpus 2"])
async def test_what_is_wrong_with_a_gpu_that_nobody_uses_leaves_the_others_alone(
    on_standin: pytest.MonkeyPatch, tmp_path: Path, words: str
) -> None:
    on_standin.setenv("MTPBENCH_FAKE_NVML", f"gpus 3 {words}")
    on_standin.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    async with await local_meter(tmp_path) as meter:
        await meter.begin()
        origin = time.perf_counter()
        await asyncio.sleep(1.2)
        await meter.end()
    assert meter.reason is None
    got = measure_energy(meter.samples(origin), Window(start_s=0.2, end_s=1.0), 2, 9.0, 5.0, meter.source)
    assert got.energy_j == pytest.approx(1100 * 0.8, rel=0.1)
    if "mig" in words or "hopper" in words or words == "gpus 2":
        assert got.unused_gpus == 0


async def test_a_file_that_does_not_show_what_was_written_is_a_reason(
    on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_standin.setattr(meters, "FILE_DELAY_S", 0.2)
    async with await local_meter(tmp_path) as meter:
        await meter.begin()
        sampler = meter._samplers[0]
        tick = sampler._tick

        async def ahead(field: str) -> int:
            number = await tick(field)
            return 10_000_000 if field == "size" else number

        on_standin.setattr(sampler, "_tick", ahead)
        await meter.end()
        assert str(meter.reason).startswith("sampler_failed: power-node0.jsonl shows ")
        assert str(meter.reason).endswith(" of the 10000000 bytes that were written")


async def test_idle_power_of_two_nodes_is_a_mean_over_all_their_gpus(
    on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held = held_by_node(deployment(("prefill-0", 0, (0,)), ("decode-0", 1, (0, 1))))
    nodes = [MeteredNode(gpus=gpus_of_node(n, held[n], None), host=Host(name="here")) for n in held]
    async with Meter(nodes, tmp_path) as meter:
        (idle,) = await meter.rest("before_start", 0.5)
    assert idle.power_w_per_gpu == pytest.approx((500 + 500 + 600) / 3, rel=0.1)


@pytest.mark.parametrize(
    ("shown", "order", "code"),
    [
        ("0", "FASTEST_FIRST", "gpu_order: CUDA_DEVICE_ORDER is FASTEST_FIRST"),
        ("0", "PCI_BUS_ID", "sampler_failed"),
        ("GPU-1234", "FASTEST_FIRST", "sampler_failed"),
    ],
)
async def test_numbers_in_another_order_name_other_gpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shown: str, order: str, code: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    monkeypatch.setattr(meters.HostSampler, "begin", refuse)
    made = deployment(("decode-0", 0, (0,)))
    process = dataclasses.replace(made.processes[0], env={"CUDA_DEVICE_ORDER": order})
    made = dataclasses.replace(made, processes=(process,))
    meter = await meter_at(LocalSite(), made, make_point(), tmp_path)
    async with meter:
        assert str(meter.reason).startswith(code)


async def refuse(sampler: meters.HostSampler) -> None:
    raise OSError("no sampler here")
