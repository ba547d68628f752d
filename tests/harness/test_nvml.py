"""NVML as a power source, against a stand-in for the module `pynvml` with faults of its own."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from measured import make_point
from mtpbench.power import meter as metering
from mtpbench.power.energy import measure_energy
from mtpbench.power.meter import Meter, local_gpus
from mtpbench.power.nvml import SOURCE_AVERAGE, SOURCE_INSTANT, NvmlSampler, NvmlUnavailable
from mtpbench.records import Deployment, Process, Simulation
from mtpbench.window import Window


class FakeNvml:
    """GPUs that draw 500 W each, with the faults that are asked for."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, gpus: int = 2, driver: bool = True, mig: bool = False, **faults: bool) -> None:
        self.gpus, self.driver, self.mig, self.faults = gpus, driver, mig, faults
        self.begun, self.open = time.perf_counter(), 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise self.NVMLError("Library not found")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, gpu: int) -> int:  # noqa: N802
        if gpu >= self.gpus:
            raise self.NVMLError("Invalid Argument")
        return gpu

    def nvmlDeviceGetMigMode(self, _: int) -> list[int]:  # noqa: N802
        if self.faults.get("no_mig"):
            raise self.NVMLError("Not Supported")
        return [int(self.mig), int(self.mig)]

    def nvmlDeviceGetTotalEnergyConsumption(self, _: int) -> int:  # noqa: N802
        if self.faults.get("no_counter"):
            raise self.NVMLError("Not Supported")
        return int((time.perf_counter() - self.begun) * 500 * 1e3)

    def nvmlDeviceGetPowerUsage(self, _: int) -> int:  # noqa: N802
        return 510_000

    def nvmlDeviceGetFieldValues(self, _: int, __: list[int]) -> list[Any]:  # noqa: N802
        failed = int(bool(self.faults.get("no_instant")))
        return [SimpleNamespace(nvmlReturn=failed, value=SimpleNamespace(uiVal=500_000))]


def test_counter_and_power_of_every_gpu_become_energy() -> None:
    library = FakeNvml()
    origin = time.perf_counter()
    with NvmlSampler((0, 1), 0.02, library) as sampler:
        time.sleep(0.3)
    samples = sampler.samples(origin)
    assert library.open == 0
    assert sampler.source == SOURCE_INSTANT
    assert {s.gpu for s in samples} == {0, 1}
    end = max(s.time_s for s in samples if s.gpu == 0)
    energy = measure_energy(samples, Window(start_s=0.02, end_s=end - 0.02), 2, 100.0, 10.0, sampler.source)
    assert energy.reason is None
    assert energy.mean_power_w_per_gpu == pytest.approx(500, rel=0.05)


def test_power_is_averaged_where_the_driver_has_no_instant_reading() -> None:
    with NvmlSampler((0,), 1.0, FakeNvml(no_instant=True, no_mig=True)) as sampler:
        pass
    assert sampler.source == SOURCE_AVERAGE
    assert {s.power_w for s in sampler.samples(0.0)} == {510.0}


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        (FakeNvml(driver=False), "nvmlInit: Library not found"),
        (FakeNvml(gpus=1), "GPU 1: Invalid Argument"),
        (FakeNvml(mig=True), "GPU 0: MIG is on"),
        (FakeNvml(no_counter=True), "GPU 0: no energy counter"),
    ],
)
def test_what_can_not_be_metered_says_why(library: FakeNvml, reason: str) -> None:
    with pytest.raises(NvmlUnavailable, match=reason), NvmlSampler((0, 1), 1.0, library):
        pass
    assert library.open == 0


def deployment(gpus: tuple[int, ...]) -> Deployment:
    process = Process(name="aggregated-0", role="aggregated", argv=("x",), gpus=gpus)
    return Deployment(
        key="k",
        processes=(process,),
        front="aggregated-0",
        front_port="http",
        model_name="m",
        gpus=len(gpus),
        nodes=1,
    )


def test_the_meter_says_which_source_it_found_or_why_none(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter()
    meter.start(deployment((0,)), make_point(simulation=Simulation(profile="p")))
    assert (meter.source, meter.reason, meter.samples(0.0)) == ("simulated", None, [])
    monkeypatch.setattr(metering, "NvmlSampler", lambda gpus, s: NvmlSampler(gpus, s, FakeNvml(driver=False)))
    meter.start(deployment((0,)), make_point())
    meter.stop()
    assert (meter.source, meter.reason) == ("none", "nvmlInit: Library not found")
    monkeypatch.setattr(metering, "NvmlSampler", lambda gpus, s: NvmlSampler(gpus, s, FakeNvml()))
    meter.start(deployment((0, 1)), make_point())
    meter.stop()
    assert (meter.source, meter.reason) == (SOURCE_INSTANT, None)
    assert {s.gpu for s in meter.samples(0.0)} == {0, 1}


def test_gpus_are_those_that_the_environment_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local_gpus(deployment((0, 1))) == (0, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert local_gpus(deployment((0, 1))) == (4, 6)
    for shown in ("4", "GPU-1234,GPU-5678"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        with pytest.raises(NvmlUnavailable, match="2 GPU indices are needed"):
            local_gpus(deployment((0, 1)))
