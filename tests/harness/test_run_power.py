"""Power through the whole pipeline: from the sampler's file to a stored result, and `power: required`."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from mtpbench import deployment_run
from mtpbench.executors.local import LocalSite
from mtpbench.power.meter import Meter
from mtpbench.records import Point, PointResult
from mtpbench.run import plan_run, recompute, run_live
from mtpbench.store import StoredPoint, SweepStore, read_sweep
from mtpbench.sweep import load_sweep

REAL_TIME = ("clock: scaled\n  speed: 5", "clock: real"), ("osl: 32", "osl: 16")


class Quiet:
    """An observer that only remembers troubles."""

    def __init__(self) -> None:
        self.troubles: list[str] = []

    def ladder_started(self, deployment: object, points: object) -> None: ...
    def point_started(self, point: Point) -> None: ...
    def point_progress(self, point: Point, progress: object) -> None: ...
    def point_finished(self, point: Point, result: PointResult) -> None: ...
    def trouble(self, message: str) -> None:
        self.troubles.append(message)


def measure(points: tuple[Point, ...], store: SweepStore, observer: Quiet) -> tuple[StoredPoint, ...]:
    store.open()
    asyncio.run(run_live(plan_run(points, store), store, observer, asyncio.Event(), LocalSite()))
    return read_sweep(store.directory).points


def test_metered_gpus_give_a_point_its_energy_its_idle_power_and_its_conditions(
    write_sweep, on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The embedded engine serves, and the stand-in's four GPUs are read as if they were its own."""

    async def real_meter(site: LocalSite, deployment, _point: Point, directory: Path) -> Meter:  # type: ignore[no-untyped-def]
        return Meter(site.metered(deployment, directory), directory)

    on_standin.setattr(deployment_run, "meter_at", real_meter)
    on_standin.setattr(deployment_run, "simulated_power", lambda _: [])
    on_standin.setenv("MTPBENCH_FAKE_NVML", "gpus 4 watts 400 reasons 64")
    rules = ("min_window_s: 0.1", "min_window_s: 0.1, idle_s: 0.6")
    sweep = load_sweep(write_sweep(*REAL_TIME, rules))
    mine = tuple(point for point in sweep.points if point.arm.name == "off")
    store = SweepStore(tmp_path, sweep.info)
    first, second = measure(mine, store, Quiet())
    for stored in (first, second):
        energy, window = stored.result.energy, stored.result.steady
        assert window is not None
        assert energy.reason is None
        assert energy.meter_text == "nvml energy counter, instant power, GPU scope"
        seconds = window.end_s - window.start_s
        assert energy.energy_j == pytest.approx((400 + 500 + 600 + 700) * seconds, rel=0.05)
        assert energy.energy_j_by_node == {"0": pytest.approx(energy.energy_j)}
        assert energy.joules_per_output_token == pytest.approx(energy.energy_j / window.output_tokens)
        cold, loaded = stored.result.idle
        assert (cold.state, loaded.state) == ("before_start", "loaded")
        assert cold.power_w_per_gpu == pytest.approx(550, rel=0.05)
        assert loaded.power_w_per_gpu == pytest.approx(550, rel=0.05)
        assert [gpu.name for gpu in stored.result.gpus] == [f"aggregated-0/{i}" for i in range(4)]
        assert stored.provenance.driver == "999.1"
        gpu = "GPU-00000000-0000-0000-0000-000000000003"
        assert stored.provenance.gpus[3].startswith("aggregated-0/3: NVIDIA ")
        assert stored.provenance.gpus[3].endswith(gpu)
        notes = stored.provenance.notes
        assert "GPU aggregated-0/0: clocks were held back by hw_thermal_slowdown, up to 40 °C" in notes
    assert first.result.energy.energy_j != second.result.energy.energy_j
    assert len(list((store.directory / "servers").glob("*/power-node0.jsonl"))) == 1
    was, now = recompute(first.directory)
    assert was == now


def test_power_that_is_required_and_can_not_be_read_starts_nothing(
    write_sweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    rules = ("min_window_s: 0.1", "min_window_s: 0.1, power: required")
    sweep = load_sweep(write_sweep(rules))
    played, observer = sweep.points[0], Quiet()
    assert played.measurement.power == "required"
    # What is not simulated needs a meter, and there is none on this machine.
    real = dataclasses.replace(
        played, simulation=None, engine=dataclasses.replace(played.engine, name="vllm", flags={})
    )
    info = dataclasses.replace(sweep.info, planned=(real.id,))
    (stored,) = measure((real,), SweepStore(tmp_path, info), observer)
    why = "power: required, but can't be read: no_nvml: nvmlInit: NVML Shared Library Not Found"
    first = stored.result.reasons[0]
    assert (first.code, first.detail) == ("start_failed", why)
    assert why in observer.troubles[0]
    logs = [path.name for path in (tmp_path / info.name / "servers").rglob("*.log")]
    assert logs == []


def test_a_point_whose_energy_got_lost_is_measured_again_where_power_is_required(
    write_sweep, on_standin: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def real_meter(site: LocalSite, deployment, _point: Point, directory: Path) -> Meter:  # type: ignore[no-untyped-def]
        return Meter(site.metered(deployment, directory), directory)

    on_standin.setattr(deployment_run, "meter_at", real_meter)
    on_standin.setattr(deployment_run, "simulated_power", lambda _: [])
    on_standin.setattr("mtpbench.measure.MAX_GAP_S", 0.5)
    on_standin.setenv("MTPBENCH_FAKE_NVML", "gpus 4 at 1500 lost 1")
    rules = ("min_window_s: 0.1", "min_window_s: 0.1, idle_s: 0, power: required")
    sweep = load_sweep(write_sweep(*REAL_TIME, rules))
    mine = tuple(point for point in sweep.points if point.arm.name == "off")
    store = SweepStore(tmp_path, sweep.info)
    stored = measure(mine, store, Quiet())
    assert len(stored) == 2
    lost = [point for point in stored if point.result.energy.energy_j is None]
    assert lost
    for point in stored:
        reasons = {reason.code: reason.detail for reason in point.result.reasons}
        assert ("power_missing" in reasons) == (point in lost)
        # Throughput is there all the same.
        assert point.result.steady is not None
    assert "`power: required`, but " in {r.code: r.detail for r in lost[-1].result.reasons}["power_missing"]
    assert {point.id for point in plan_run(mine, store).points} >= {point.point.id for point in lost}


def test_a_simulated_engine_meets_the_requirement(write_sweep, tmp_path: Path) -> None:
    rules = ("min_window_s: 0.1", "min_window_s: 0.1, power: required")
    sweep = load_sweep(write_sweep(rules))
    stored = measure(sweep.points[:1], SweepStore(tmp_path, sweep.info), Quiet())
    assert {point.result.energy.meter_text for point in stored} == {"simulated"}


def test_how_power_is_asked_for_is_no_part_of_a_point(write_sweep) -> None:
    plain = load_sweep(write_sweep()).points[0]
    metered = load_sweep(
        write_sweep(("min_window_s: 0.1", "min_window_s: 0.1, power: required, idle_s: 0"))
    ).points[0]
    assert plain.id == metered.id
    assert plain.deployment_key == metered.deployment_key
