"""Energy of a window from power samples, and the simulated source's text."""

from __future__ import annotations

import dataclasses

import pytest

from measured import power_samples
from mtpbench.power.energy import measure_energy
from mtpbench.power.simulated import readings
from mtpbench.window import Window

WINDOW = Window(start_s=1.1, end_s=4.1)


def energy(samples, gpus=2, window=WINDOW, **changes):
    return measure_energy(samples, window, gpus, 600.0, 300.0, "simulated", **changes)


def change(samples, **how):
    return [dataclasses.replace(s, **{k: f(s) for k, f in how.items()}) for s in samples]


def test_energy_is_the_counters_difference_interpolated_to_the_windows_edges():
    got = energy(power_samples())
    assert got.energy_j == pytest.approx(2 * 500 * 3)
    assert got.mean_power_w_per_gpu == pytest.approx(500)
    assert got.joules_per_token == pytest.approx(5)
    assert got.joules_per_output_token == pytest.approx(10)
    assert (got.gpus, got.source, got.reason) == (2, "simulated", None)


def test_idle_gpus_count():
    idle = [
        s if s.gpu == 0 else dataclasses.replace(s, power_w=50.0, energy_j=50 * s.time_s)
        for s in power_samples()
    ]
    assert energy(idle).energy_j == pytest.approx(3 * 550)


def test_equal_gpu_indices_of_two_processes_are_two_gpus():
    other = change(power_samples(), process=lambda s: "other")
    assert energy(power_samples() + other, gpus=4).energy_j == pytest.approx(6000)


def test_without_a_counter_the_integral_of_power_serves_and_says_so():
    got = energy(change(power_samples(), energy_j=lambda s: None))
    assert got.energy_j == pytest.approx(3000)
    assert got.source == "simulated, integral of power"


def test_without_power_or_with_few_samples_the_counter_goes_unchecked_and_says_so():
    assert energy(change(power_samples(), power_w=lambda s: None)).source == "simulated, not cross-checked"
    few = energy(power_samples(every_s=1.0), window=Window(start_s=1.5, end_s=2.5))
    assert (few.energy_j, few.source) == (pytest.approx(1000), "simulated, not cross-checked")


@pytest.mark.parametrize(
    ("reason", "samples"),
    [
        ("no_power_samples", []),
        ("no_power_samples", change(power_samples(), energy_j=lambda s: None, power_w=lambda s: None)),
        ("no_power_samples", change(power_samples(), energy_j=lambda s: s.energy_j if s.gpu else None)),
        ("missing_gpu", power_samples(gpus=1)),
        ("unexpected_gpu", power_samples(gpus=3)),
        ("power_not_covered", power_samples(seconds=3)),
        ("power_not_covered", [s for s in power_samples() if s.time_s > 1.2]),
        ("counter_reset", change(power_samples(), energy_j=lambda s: s.energy_j - 1500 * (s.time_s > 2))),
        ("counter_frozen", change(power_samples(), energy_j=lambda s: 1000.0)),
        ("power_mismatch", change(power_samples(), power_w=lambda s: 530.0)),
        ("power_zero", change(power_samples(), energy_j=lambda s: None, power_w=lambda s: 0.0)),
    ],
)
def test_what_is_not_known_is_null_with_a_reason_never_zero(reason, samples):
    got = energy(samples)
    figures = (got.energy_j, got.mean_power_w_per_gpu, got.joules_per_token, got.joules_per_output_token)
    assert (figures, got.reason) == ((None,) * 4, reason)


def test_a_gap_in_the_samples_is_found_and_its_limit_can_be_set():
    samples = [s for s in power_samples(seconds=12) if not 2 < s.time_s < 6]
    window = Window(start_s=1.0, end_s=11.0)
    assert energy(samples, window=window).reason == "power_gap"
    assert energy(samples, window=window, max_gap_s=30.0).energy_j == pytest.approx(10_000)


def test_a_gap_outside_the_window_does_not_matter():
    samples = [s for s in power_samples(seconds=12) if not 5 < s.time_s < 9]
    assert energy(samples).reason is None


def test_a_counter_that_freezes_for_long_inside_the_window_is_found():
    def frozen(sample):
        return 1000 + 500 * (sample.time_s if sample.time_s < 4 else max(4.0, sample.time_s - 4))

    samples = change(power_samples(seconds=12), energy_j=frozen, power_w=lambda s: None)
    assert energy(samples, window=Window(start_s=1.0, end_s=11.0)).reason == "counter_frozen"


def test_a_counter_slower_than_the_samples_is_not_frozen():
    samples = change(power_samples(), energy_j=lambda s: 1000 + 500 * (s.time_s // 0.5) * 0.5)
    assert energy(samples).reason is None


def test_a_mismatch_of_less_than_five_percent_passes():
    assert energy(change(power_samples(), power_w=lambda s: 520.0)).energy_j == pytest.approx(3000)


def test_the_simulated_source_reads_power_and_energy_per_gpu():
    text = (
        "# HELP mtpbench_sim_gpu_power_watts Power.\n# TYPE mtpbench_sim_gpu_power_watts gauge\n"
        'mtpbench_sim_gpu_power_watts{gpu="0"} 512.5\nmtpbench_sim_gpu_power_watts{gpu="1"} 300\n'
        "# TYPE mtpbench_sim_gpu_energy_joules_total counter\n"
        'mtpbench_sim_gpu_energy_joules_total{gpu="0"} 1e6\n'
        "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 3\n"
    )
    assert readings(text) == [(0, 512.5, 1e6), (1, 300.0, None)]
    assert readings("# TYPE other gauge\nother 1\n") == []


def test_unreadable_power_is_an_error_not_an_empty_reading():
    with pytest.raises(ValueError, match="abc"):
        readings('mtpbench_sim_gpu_power_watts{gpu="0"} abc\n')
