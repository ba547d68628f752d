"""The meter of a point: the real sampler process on the stand-in, and what it says where there is none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from measured import make_point
from mtpbench.power.energy import measure_energy, split_by_node
from mtpbench.power.meter import Meter, held_gpus
from mtpbench.power.nvml import NvmlSource, NvmlUnavailable, list_gpus
from mtpbench.records import Deployment, Process, Simulation
from mtpbench.window import Window


def deployment(*held: tuple[str, tuple[int, ...]]) -> Deployment:
    processes = tuple(
        Process(name=name, role=name.rsplit("-", 1)[0], argv=("x",), gpus=gpus) for name, gpus in held
    )
    return Deployment(
        key="k",
        processes=processes,
        front=processes[0].name,
        front_port="http",
        model_name="m",
        gpus=sum(len(p.gpus) for p in processes),
        nodes=1,
    )


TWO = deployment(("prefill-0", (0,)), ("decode-0", (1,)))


@pytest.fixture
def on_standin(standin: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Processes that are started now find the stand-in."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(standin))
    monkeypatch.setenv("MTPBENCH_FAKE_NVML", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("MTPBENCH_DCGM_URL", raising=False)
    return monkeypatch


def run(meter: Meter, deployed: Deployment = TWO, seconds: float = 0.0) -> None:
    meter.start(deployed, make_point())
    time.sleep(seconds)
    meter.stop()


def test_a_point_is_metered_from_start_to_stop(on_standin: pytest.MonkeyPatch, tmp_path: Path) -> None:
    origin = time.perf_counter()
    meter = Meter(tmp_path)
    run(meter, seconds=0.6)
    assert (meter.source, meter.reason) == ("nvml energy counter, instant power, GPU scope", None)
    found = meter.samples(origin)
    assert {(s.process, s.gpu) for s in found} == {("prefill-0", 0), ("decode-0", 1)}
    times = [s.time_s for s in found]
    assert 0 < min(times) < max(times) <= time.perf_counter() - origin
    window = Window(start_s=min(times) + 0.05, end_s=max(times) - 0.05)
    got = measure_energy(found, window, 2, 100.0, 10.0, meter.source)
    assert got.mean_power_w_per_gpu == pytest.approx(550, rel=0.1)
    assert split_by_node(got.energy_j_by_gpu, {"prefill-0": 0, "decode-0": 1}) == pytest.approx(
        {0: got.energy_j_by_gpu["prefill-0/0"], 1: got.energy_j_by_gpu["decode-0/1"]}
    )
    assert [p.suffix for p in sorted(tmp_path.iterdir())] == [".err", ".jsonl"]


def test_the_embedded_engine_is_its_own_source() -> None:
    meter = Meter()
    meter.start(TWO, make_point(simulation=Simulation(profile="p")))
    meter.stop()
    assert (meter.source, meter.reason, meter.samples(0.0)) == ("simulated", None, [])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("mig 1", "mig: GPU 0: MIG is on"),
        ("gpus 1", "no_gpu: GPU 1: Invalid Argument"),
        ("at 0 lost 0", "no_meter: GPU 0"),
    ],
)
def test_what_can_not_be_metered_says_why_and_the_run_goes_on(
    on_standin: pytest.MonkeyPatch, words: str, reason: str
) -> None:
    on_standin.setenv("MTPBENCH_FAKE_NVML", words)
    meter = Meter()
    run(meter)
    assert (meter.source, meter.samples(0.0)) == ("none", [])
    assert meter.reason is not None
    assert meter.reason.startswith(reason)


def test_without_a_driver_the_reason_is_nvmls_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    meter = Meter()
    run(meter)
    assert meter.source == "none"
    assert meter.reason == "no_nvml: nvmlInit: NVML Shared Library Not Found"


def test_a_swapped_gpu_takes_the_source_away(on_standin: pytest.MonkeyPatch) -> None:
    on_standin.setenv("MTPBENCH_FAKE_NVML", "at 200 swap 1")
    meter = Meter()
    run(meter, seconds=1.3)
    assert meter.source == "none"
    assert meter.reason is not None
    assert meter.reason.startswith("gpu_swapped: GPU 1")
    assert meter.samples(0.0) == []


def test_a_sampler_that_died_is_told_and_what_it_read_is_kept(on_standin: pytest.MonkeyPatch) -> None:
    meter = Meter()
    meter.start(TWO, make_point())
    process = meter._process
    assert process is not None
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    meter.stop()
    assert meter.notes[-1].startswith("the power sampler died: exit -9")
    assert len(meter.samples(0.0)) > 2


def test_the_sampler_ends_when_the_run_is_killed(on_standin: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from mtpbench.power.meter import SamplerProcess\n"
        "print(SamplerProcess(['0'], 0.05, Path(sys.argv[1])).pid, flush=True); time.sleep(60)"
    )
    run_ = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert run_.stdout is not None
    sampler = int(run_.stdout.readline())
    run_.kill()
    run_.communicate()
    (file,) = tmp_path.glob("*.jsonl")
    deadline = time.monotonic() + 10
    while '"end":"told to end"' not in file.read_text():
        assert time.monotonic() < deadline, f"sampler {sampler} outlived its run"
        time.sleep(0.05)


def test_gpus_are_those_that_the_environment_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    held = deployment(("decode-0", (0, 1)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert held_gpus(held) == [("0", "decode-0"), ("1", "decode-0")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert held_gpus(held) == [("4", "decode-0"), ("6", "decode-0")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1234,GPU-5678")
    assert held_gpus(held) == [("GPU-1234", "decode-0"), ("GPU-5678", "decode-0")]
    for shown in ("4", "", "MIG-1,MIG-2"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        with pytest.raises(ValueError, match=r"no_gpu: CUDA_VISIBLE_DEVICES=.*2 whole GPUs are needed"):
            held_gpus(held)
    with pytest.raises(ValueError, match="holds no GPU"):
        held_gpus(deployment(("router-0", ())))


def test_a_gpu_that_two_processes_share_is_one_gpu() -> None:
    shared = deployment(("prefill-0", (0,)), ("decode-0", (0,)))
    assert held_gpus(shared) == [("0", "prefill-0+decode-0")]


def test_gpus_are_found_by_uuid(on_standin: pytest.MonkeyPatch) -> None:
    on_standin.setenv("CUDA_VISIBLE_DEVICES", "GPU-00000000-0000-0000-0000-000000000001")
    meter = Meter()
    run(meter, deployment(("decode-0", (0,))))
    assert meter.probes[0].meters == ((0, "GPU-00000000-0000-0000-0000-000000000001"),)
    assert {round(s.power_w or 0) for s in meter.samples(0.0)} == {600}


class NoDriver:
    """The module `pynvml` where the driver is missing."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:  # noqa: N802
        raise self.NVMLError("Library not found")


def test_without_a_driver_there_is_no_list_and_no_source() -> None:
    with pytest.raises(NvmlUnavailable, match="nvmlInit: Library not found"):
        list_gpus(NoDriver())
    assert NvmlSource((), NoDriver()).probe().reason == "no_nvml: nvmlInit: Library not found"
