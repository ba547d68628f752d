"""Power over time: the sum over GPUs tells no fall that did not happen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtpbench.records import PowerSample
from mtpbench_analysis.traces import read_sweep_power, thin, total_power
from stored_sweep import write_sweep


def reading(
    time_s: float,
    power_w: float | None,
    gpu: int = 0,
    energy_j: float | None = None,
    process: str = "decode-0",
) -> PowerSample:
    return PowerSample(time_s=time_s, process=process, gpu=gpu, power_w=power_w, energy_j=energy_j)


def test_gpus_read_at_different_moments_are_interpolated_before_they_are_added() -> None:
    samples = [reading(t, 100.0 + t) for t in range(5)] + [reading(t + 0.5, 200.0, gpu=1) for t in range(4)]
    times_s, power_w, gpus = total_power(samples)
    assert gpus == 2
    assert times_s.tolist() == [0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    assert power_w.tolist() == pytest.approx([300 + t for t in times_s])


def test_only_what_every_gpu_covers_is_told() -> None:
    samples = [reading(t, 100.0) for t in range(10)] + [reading(t, 100.0, gpu=1) for t in range(3, 6)]
    times_s, power_w, _ = total_power(samples)
    assert (times_s[0], times_s[-1], set(power_w)) == (3, 5, {200.0})


def test_a_counter_alone_gives_its_slope() -> None:
    times_s, power_w, _ = total_power([reading(t, None, energy_j=50.0 * t) for t in range(5)])
    assert times_s.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert set(power_w) == {50.0}


def test_a_gpu_without_readings_makes_the_sum_unknown_and_rails_are_no_gpus() -> None:
    good = [reading(t, 100.0) for t in range(5)]
    assert total_power([*good, reading(0, None, gpu=1)])[2] == 0
    assert total_power([*good, reading(1, 900.0, process="grace@0")])[1].max() == 100
    assert total_power([])[2] == 0


def test_a_folder_tells_what_it_lacks_and_which_points_are_invalid(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    damaged = next(directory.glob("off*_c1_*"))
    (damaged / "result.json").write_text("{")
    sweep = read_sweep_power(directory)
    assert (sweep.info.name, len(sweep.traces), list(sweep.damaged)) == ("small", 7, [damaged.name])
    assert [one.split("_")[2] for one in sweep.missing] == ["c512"]
    broken = {(one.arm, one.load): one.broken for one in sweep.traces if one.broken}
    assert broken == {("mtp", "c128"): ("client_saturated",), ("mtp", "c256"): ("server_died",)}


def test_a_file_of_power_that_cant_be_read_gives_a_short_reason(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path)
    cut = next(directory.glob("off*_c1_*")) / "power.parquet"
    cut.write_bytes(cut.read_bytes()[:100])
    (next(directory.glob("off*_c16_*")) / "power.parquet").unlink()
    found = {one.load: one.reason for one in read_sweep_power(directory).traces if one.arm == "off"}
    assert found == {
        "c1": "power.parquet is damaged",
        "c16": "power.parquet is missing",
        "c64": "no_power_samples",
    }


def test_thinning_keeps_means_and_ends() -> None:
    times_s = np.linspace(0, 100, 100_001)
    power_w = np.where(times_s < 50, 100.0, 300.0)
    few_s, few_w = thin(times_s, power_w, 200)
    assert len(few_s) == 200
    assert few_w.mean() == pytest.approx(power_w.mean(), rel=1e-3)
    assert thin(times_s[:5], power_w[:5], 200)[0] is not few_s
    with pytest.raises(ValueError, match="at least 2"):
        thin(times_s, power_w, 1)
