"""Energy of a window from power samples, and the simulated source's text."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measured import SIMULATED_POWER, power_samples
from mtpbench.engines.simulated import simulated_power
from mtpbench.metrics.energy import REASONS, measure_energy, measure_idle, split_by_node
from mtpbench.metrics.window import Window
from mtpbench.power.log import UnreadCode
from mtpbench.records import PowerSample, Reason, to_json

WINDOW = Window(start_s=1.1, end_s=4.1)


def energy(samples, gpus=2, window=WINDOW, **changes):
    return measure_energy(samples, window, gpus, 600.0, 300.0, SIMULATED_POWER, **changes)


def change(samples, **how):
    return [dataclasses.replace(s, **{k: f(s) for k, f in how.items()}) for s in samples]


def test_energy_is_the_counters_difference_interpolated_to_the_windows_edges():
    got = energy(power_samples())
    assert got.energy_j == pytest.approx(2 * 500 * 3)
    assert got.mean_power_w_per_gpu == pytest.approx(500)
    assert got.joules_per_token == pytest.approx(5)
    assert got.joules_per_output_token == pytest.approx(10)
    assert (got.gpus, got.source_text, got.reason) == (2, "simulated", None)


def test_idle_gpus_count():
    idle = [
        s if s.gpu == 0 else dataclasses.replace(s, power_w=50.0, energy_j=50 * s.time_s)
        for s in power_samples()
    ]
    assert energy(idle).energy_j == pytest.approx(3 * 550)


def test_a_gpu_that_no_process_holds_is_in_no_figure_but_its_own():
    other = [
        dataclasses.replace(s, process="unused@0", power_w=70.0, energy_j=70 * s.time_s)
        for s in power_samples()
        if s.gpu == 1
    ]
    got = energy([*power_samples(), *other])
    assert got.energy_j == pytest.approx(2 * 500 * 3)
    assert (got.unused_gpus, got.unused_energy_j) == (1, pytest.approx(70 * 3))
    broken = energy([*power_samples(), *other[: len(other) // 2]])
    assert broken.energy_j == got.energy_j
    assert (broken.unused_gpus, broken.unused_energy_j) == (1, None)
    assert (energy(power_samples()).unused_gpus, energy(power_samples()).unused_energy_j) == (0, None)


def test_each_gpu_is_held_against_its_own_integral():
    """5.5% of one GPU are 2.75% of two: in their sum it would pass."""
    one = [s if s.gpu else dataclasses.replace(s, power_w=527.5) for s in power_samples()]
    assert energy(one).reason.code == "power_mismatch"


def test_idle_power_is_a_mean_over_all_gpus_or_a_reason():
    idle = measure_idle(power_samples(), "loaded", 4.0, 2)
    assert (idle.state, idle.power_w_per_gpu, idle.reason) == ("loaded", pytest.approx(500), None)
    missing = measure_idle(power_samples(), "before_start", 4.0, 3)
    assert (missing.power_w_per_gpu, str(missing.reason)) == (None, "missing_gpu")


def test_equal_gpu_indices_of_two_processes_are_two_gpus():
    other = change(power_samples(), process=lambda s: "other")
    assert energy(power_samples() + other, gpus=4).energy_j == pytest.approx(6000)


def uncounted(samples):
    """Without a counter, and with power that moves, as a real meter's does."""
    return change(samples, energy_j=lambda s: None, power_w=lambda s: s.power_w + 0.001 * (s.time_s % 0.5))


def test_without_a_counter_the_integral_of_power_serves_and_says_so():
    got = energy(uncounted(power_samples()))
    assert got.energy_j == pytest.approx(3000, rel=1e-5)
    assert got.source_text == "simulated, integral of power"


def test_a_gpu_that_tells_neither_counter_nor_power_is_never_taken_for_one_that_draws_nothing():
    blind = [dataclasses.replace(s, power_w=None) if s.gpu == 1 else s for s in uncounted(power_samples())]
    got = energy(blind)
    assert (got.energy_j, got.joules_per_token) == (None, None)
    assert got.reason.code in REASONS


def test_without_power_or_with_few_samples_the_counter_goes_unchecked_and_says_so():
    assert (
        energy(change(power_samples(), power_w=lambda s: None)).source_text == "simulated, not cross-checked"
    )
    few = energy(power_samples(every_s=1.0), window=Window(start_s=1.5, end_s=2.5))
    assert (few.energy_j, few.source_text) == (pytest.approx(1000), "simulated, not cross-checked")


def lost(samples, since_s, until_s=float("inf")):
    """GPU 1 does not answer for a while."""
    return [
        dataclasses.replace(s, power_w=None, energy_j=None) if s.gpu and since_s <= s.time_s < until_s else s
        for s in samples
    ]


@pytest.mark.parametrize(
    ("reason", "samples"),
    [
        ("no_power_samples", []),
        ("no_power_samples", change(power_samples(), energy_j=lambda s: None, power_w=lambda s: None)),
        ("no_power_samples", uncounted(power_samples(gpus=1)) + power_samples()[1::2]),
        ("power_frozen", change(power_samples(seconds=9), energy_j=lambda s: None)),
        ("gpu_lost", lost(power_samples(), 3.0)),
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
    assert (figures, got.reason) == ((None,) * 4, Reason(code=reason))


def test_a_gap_in_the_samples_is_found_and_its_limit_can_be_set():
    samples = [s for s in power_samples(seconds=12) if not 2 < s.time_s < 6]
    window = Window(start_s=1.0, end_s=11.0)
    assert energy(samples, window=window).reason.code == "power_gap"
    assert energy(samples, window=window, max_gap_s=30.0).energy_j == pytest.approx(10_000)


def test_a_gap_outside_the_window_does_not_matter():
    samples = [s for s in power_samples(seconds=12) if not 5 < s.time_s < 9]
    assert energy(samples).reason is None


def test_a_counter_that_freezes_for_long_inside_the_window_is_found():
    def frozen(sample):
        return 1000 + 500 * (sample.time_s if sample.time_s < 4 else max(4.0, sample.time_s - 4))

    samples = change(power_samples(seconds=12), energy_j=frozen, power_w=lambda s: None)
    assert energy(samples, window=Window(start_s=1.0, end_s=11.0)).reason.code == "counter_frozen"


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
    assert [(gpu.gpu, gpu.power_w, gpu.energy_j) for gpu in simulated_power(text)] == [
        (0, 512.5, 1e6),
        (1, 300.0, None),
    ]
    assert simulated_power("# TYPE other gauge\nother 1\n") == []


def test_unreadable_power_is_an_error_not_an_empty_reading():
    with pytest.raises(ValueError, match="abc"):
        simulated_power('mtpbench_sim_gpu_power_watts{gpu="0"} abc\n')


def test_a_gpu_that_comes_back_is_lost_where_it_was_away_for_longer_than_a_gap():
    samples, window = power_samples(seconds=12), Window(start_s=1.0, end_s=11.0)
    assert energy(lost(samples, 3, 7), window=window).reason.code == "gpu_lost"
    assert energy(lost(samples, 3, 4), window=window).energy_j == pytest.approx(10_000)
    assert energy(lost(samples, 11.2), window=window).energy_j == pytest.approx(10_000)


def test_one_window_of_frozen_power_is_found_only_where_there_is_no_counter():
    window = Window(start_s=1.0, end_s=11.0)
    assert energy(power_samples(seconds=12), window=window).reason is None
    still = change(power_samples(seconds=12), energy_j=lambda s: None)
    assert energy(still, window=window).reason.code == "power_frozen"


def test_a_slow_counter_is_read_at_its_steps():
    """A line through every reading of a staircase would be off by up to a step at each edge."""
    samples = change(power_samples(every_s=0.1), energy_j=lambda s: 1000 + 500 * (s.time_s // 0.7) * 0.7)
    got = energy(samples, window=Window(start_s=1.0, end_s=4.0))
    assert got.energy_j == pytest.approx(3000, rel=0.01)


def grace(seconds=5.0, watts=200.0, sockets=1):
    return [
        PowerSample(time_s=i / 4, process="grace", gpu=socket, power_w=watts + 0.001 * (i % 2), energy_j=None)
        for i in range(round(seconds * 4) + 1)
        for socket in range(sockets)
    ]


def test_grace_is_a_figure_of_its_own_beside_the_gpus():
    got = energy(power_samples() + grace(sockets=2))
    assert (got.energy_j, got.gpus) == (pytest.approx(3000), 2)
    assert (got.grace_energy_j, got.grace_reason) == (pytest.approx(2 * 200 * 3, rel=1e-4), None)
    assert energy(power_samples()).grace_reason == "no_grace"


@pytest.mark.parametrize(
    ("reason", "rail"),
    [
        ("grace_power_not_covered", grace(seconds=2)),
        ("grace_no_power", change(grace(), power_w=lambda s: None)),
        ("grace_power_gap", [s for s in grace(12) if not 2 < s.time_s < 8]),
        ("grace_power_frozen", change(grace(12), power_w=lambda s: 200.0)),
    ],
)
def test_what_is_wrong_with_grace_leaves_the_gpus_alone(reason, rail):
    window = Window(start_s=1.0, end_s=WINDOW.end_s if "covered" in reason else 10.0)
    got = energy(power_samples(seconds=12) + rail, window=window)
    assert got.energy_j is not None
    assert (got.grace_energy_j, got.grace_reason) == (None, reason)


def test_energy_is_told_by_gpu_and_by_role():
    prefill = [dataclasses.replace(s, process="prefill-0") for s in power_samples()]
    decode = [dataclasses.replace(s, process="decode-1") for s in power_samples(gpus=1)]
    got = energy(prefill + decode, gpus=3)
    assert got.energy_j_by_gpu == pytest.approx(
        {"prefill-0/0": 1500, "prefill-0/1": 1500, "decode-1/0": 1500}
    )
    assert got.energy_j_by_role == pytest.approx({"prefill": 3000, "decode": 1500})
    assert got.joules_per_input_token == pytest.approx(4500 / 300)
    assert got.prefill_joules_per_input_token == pytest.approx(3000 / 300)
    assert got.decode_joules_per_output_token == pytest.approx(1500 / 300)
    assert energy(power_samples()).prefill_joules_per_input_token is None


def test_a_gpu_that_both_roles_share_belongs_to_both():
    shared = [dataclasses.replace(s, process="prefill-0+decode-0") for s in power_samples()]
    assert energy(shared).energy_j_by_role == pytest.approx({"prefill+decode": 3000})


def test_a_worker_over_several_nodes_is_of_one_role():
    ranks = [dataclasses.replace(s, process=f"decode-0.r{s.gpu}", gpu=0) for s in power_samples()]
    assert energy(ranks).energy_j_by_role == pytest.approx({"decode": 3000})


def test_energy_by_node_needs_the_node_of_every_process():
    by_gpu = {"prefill-0/0": 1.0, "decode-0/0": 2.0, "decode-0/1": 3.0, "prefill-0+decode-1/3": 4.0}
    assert split_by_node(by_gpu, {"prefill-0": 0, "decode-0": 1, "decode-1": 0}) == {"0": 5.0, "1": 5.0}
    assert split_by_node(by_gpu, {"prefill-0": 0}) == {}


def test_every_code_that_the_sources_give_is_explained_in_the_docs():
    root = Path(__file__).parents[3]
    text = (root / "docs" / "validity.md").read_text("utf-8")
    codes = set(get_args(UnreadCode))
    for path in sorted((root / "harness" / "mtpbench" / "power").glob("*.py")):
        codes |= set(re.findall(r"""return "(grace_[a-z_]+)\"""", path.read_text("utf-8")))
    assert {"no_gpu", "grace_mixed"} <= codes
    told = {code for code in codes if f"`{code}`" in text or f"`{code.removeprefix('grace_')}`" in text}
    assert codes - told == set()


def test_every_reason_is_explained_in_the_docs():
    text = (Path(__file__).parents[3] / "docs" / "validity.md").read_text("utf-8")
    section = text.split("## Why an energy is NULL")[1].split("\n## ")[0]
    assert [code for code in REASONS if f"`{code}`" not in section] == []


def test_a_gpu_that_draws_nothing_is_not_read():
    for dead in (
        [s if s.gpu else dataclasses.replace(s, power_w=0.0, energy_j=None) for s in power_samples()],
        [
            dataclasses.replace(s, energy_j=None, power_w=s.gpu and s.power_w + s.time_s % 0.5)
            for s in power_samples()
        ],
    ):
        assert energy(dead).reason.code == "power_zero"
    spare = [
        dataclasses.replace(s, process="unused@0", power_w=0.0, energy_j=None)
        for s in power_samples()
        if s.gpu
    ]
    got = energy([*power_samples(), *spare])
    assert (got.energy_j is None, got.unused_gpus, got.unused_energy_j) == (False, 1, None)
    rail = [
        dataclasses.replace(s, process="grace@0", power_w=0.0, energy_j=None)
        for s in power_samples()
        if s.gpu
    ]
    got = energy([*power_samples(), *rail])
    assert (got.energy_j is None, got.grace_energy_j, got.grace_reason) == (False, None, "grace_power_zero")


@pytest.mark.parametrize("length_s", [1.0, 2.0, 10.0])
@pytest.mark.parametrize("update_s", [0.02, 0.1, 0.25])
def test_an_honest_counter_is_believed_whatever_its_steps_and_the_windows_length(length_s, update_s):
    """A counter of 100 ms steps under a window of a second may be off by a step at each edge: 20%."""
    for phase in range(40):
        shift_s = update_s * phase / 40
        readings = []
        for tick in range(int((length_s + 2.2) * 10)):
            now_s = tick / 10
            counted_s = math.floor((now_s + shift_s) / update_s) * update_s
            readings.append(
                PowerSample(
                    time_s=now_s,
                    process="decode-0",
                    gpu=0,
                    power_w=100.0 + tick % 2 * 1e-3,
                    energy_j=100 * counted_s + 7,
                )
            )
        window = Window(start_s=1.03, end_s=1.03 + length_s)
        got = measure_energy(readings, window, 1, 9.0, 5.0, SIMULATED_POWER)
        assert got.reason is None, (phase, got)
        assert got.energy_j == pytest.approx(100 * length_s, abs=100 * max(update_s, 0.1) * 1.01)


@pytest.mark.parametrize(
    ("code", "power_w", "energy_j"),
    [
        ("power_implausible", None, lambda s: s.energy_j / 1e3),  # joules that are said to be millijoules
        ("power_implausible", None, lambda s: s.energy_j * 1e3),
        ("power_implausible", lambda s: s.power_w * 1e3, lambda s: None),
        ("power_implausible", lambda s: s.power_w / 1e3, lambda s: None),
        ("power_zero", lambda s: 0.0, lambda s: None),
        ("power_implausible", lambda s: math.nan, lambda s: None),
        ("no_power_samples", lambda s: None, lambda s: math.inf),
    ],
)
def test_a_figure_in_another_unit_is_none(code, power_w, energy_j):
    """A GPU draws neither half a watt nor half a megawatt."""
    changes = {"energy_j": energy_j, **({} if power_w is None else {"power_w": power_w})}
    got = energy(change(power_samples(), **changes))
    assert (got.energy_j, got.reason.code) == (None, code)


@pytest.mark.parametrize("has", ["counter", "power", "both"])
def test_more_than_a_tenth_above_its_limit_is_more_than_a_gpu_draws(has):
    """500 W for three seconds."""
    samples = change(power_samples(), power_w=lambda s: 500.0 + s.time_s % 0.5 / 100)
    if has == "counter":
        samples = change(samples, power_w=lambda s: None)
    if has == "power":
        samples = change(samples, energy_j=lambda s: None)
    name = f"{samples[0].process}/{samples[0].gpu}"
    assert energy(samples, limits_w={"another/0": 1.0}).energy_j == pytest.approx(3000, rel=1e-3)
    assert energy(samples, limits_w={name: 460.0}).energy_j == pytest.approx(3000, rel=1e-3)
    got = energy(samples, limits_w={name: 450.0})
    assert (got.energy_j, got.reason.code) == (None, "power_implausible")
    assert got.reason.detail == f"{name} would have drawn 500 W on average; its power limit is 450 W"
    idle = measure_idle(samples, "loaded", 4.0, 2, limits_w={name: 450.0})
    assert (idle.power_w_per_gpu, idle.reason.code) == (None, "power_implausible")


def test_a_spike_above_the_limit_is_a_reading_and_twice_the_limit_is_none():
    name = f"{power_samples()[0].process}/0"
    metered = change(power_samples(), energy_j=lambda s: None, power_w=lambda s: 400.0 + s.time_s)

    def with_one(power_w):
        return [
            dataclasses.replace(s, power_w=power_w) if s.time_s == 2.5 and not s.gpu else s for s in metered
        ]

    plain = energy(metered, limits_w={name: 450.0}).energy_j
    spiked = energy(with_one(850.0), limits_w={name: 450.0}).energy_j
    assert spiked == pytest.approx(plain + 0.25 * (850 - 402.5))
    assert energy(with_one(950.0), limits_w={name: 450.0}).energy_j == pytest.approx(plain, rel=1e-3)
    assert energy(metered, limits_w={name: 100.0}).reason.code == "power_implausible"


def test_the_steps_of_a_counter_are_no_draw_above_the_limit():
    """Of a quarter of a second each, they may show up to a step too much at both edges of the window."""
    readings = [
        PowerSample(
            time_s=tick / 10,
            process="worker",
            gpu=0,
            power_w=None,
            energy_j=500 * math.ceil(tick / 10 / 0.25 - 1e-9) * 0.25 + 7,
        )
        for tick in range(40)
    ]
    for start_s in np.arange(1.0, 1.3, 0.02):
        window = Window(start_s=float(start_s), end_s=float(start_s) + 1.0)
        got = measure_energy(readings, window, 1, 9.0, 5.0, SIMULATED_POWER, limits_w={"worker/0": 460.0})
        assert got.reason is None, got


@pytest.mark.parametrize(("factor", "limit_w"), [(1e3, None), (1e-3, None), (3.0, 700.0)])
def test_powers_in_another_unit_do_not_pass_for_none_beside_a_counter(factor, limit_w):
    """The counter is in order, and nothing checks it: power says that one of both is wrong."""
    samples = change(power_samples(), power_w=lambda s: s.power_w * factor)
    name = f"{samples[0].process}/{samples[0].gpu}"
    limits_w = {} if limit_w is None else {name: limit_w}
    got = energy(samples, limits_w=limits_w)
    assert (got.energy_j, got.reason.code) == (None, "power_implausible")
    assert name in got.reason.detail
    unread = change(power_samples(), power_w=lambda s: 0.0)
    got = energy(unread, limits_w=limits_w)
    assert (got.energy_j, got.cross_checked) == (pytest.approx(3000), False), (
        "0 W is a meter that is not read"
    )


@pytest.mark.parametrize("odd", [0.0, 1e-3, 5e5, math.nan, math.inf, -1.0])
def test_one_odd_power_among_many_is_left_out(odd):
    """A sentinel between two readings changes no integral; the rule of gaps holds."""
    integrated = change(power_samples(), energy_j=lambda s: None, power_w=lambda s: 500 + s.time_s)
    expected = energy(integrated)
    spoiled = [dataclasses.replace(s, power_w=odd) if i in (5, 20) else s for i, s in enumerate(integrated)]
    assert energy(spoiled).energy_j == pytest.approx(expected.energy_j, rel=1e-3)


ODD_NUMBERS = st.none() | st.floats() | st.sampled_from([0.0, 500.0, 501.0, 1e308, -1e308, 2.0**63])
SAMPLES = st.lists(
    st.builds(
        PowerSample,
        time_s=st.floats() | st.floats(0, 5),
        process=st.sampled_from(["d", "grace@0", "unused@0"]),
        gpu=st.integers(0, 1),
        power_w=ODD_NUMBERS,
        energy_j=ODD_NUMBERS,
    ),
    max_size=12,
)


@given(SAMPLES)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_any_samples_give_an_energy_that_can_be_stored_or_a_reason(samples):
    got = energy(samples, gpus=1, window=Window(start_s=1.0, end_s=2.0))
    to_json(got)
    assert (got.energy_j is None) == (got.reason is not None)
    to_json(measure_idle(samples, "loaded", 2.0, 1))


# --------------------------------------------------------------------------------------------- time blocks
BLOCKS = [Window(start_s=1.1 + 0.75 * i, end_s=1.85 + 0.75 * i) for i in range(4)]


def rising(every_s: float = 0.1) -> list[PowerSample]:
    """Two GPUs, one of 100 W, one whose power rises by 100 W a second."""
    times = [i * every_s for i in range(round(5 / every_s) + 1)]
    steady = [
        PowerSample(time_s=t, process="worker", gpu=0, power_w=100 + i % 2 * 1e-3, energy_j=100 * t)
        for i, t in enumerate(times)
    ]
    return steady + [
        PowerSample(time_s=t, process="worker", gpu=1, power_w=100 * t, energy_j=50 * t * t) for t in times
    ]


@pytest.mark.parametrize("counter", [True, False])
def test_the_power_of_each_block_is_the_mean_over_gpus(counter: bool) -> None:
    samples = rising() if counter else change(rising(), energy_j=lambda _: None)
    got = energy(samples, blocks=BLOCKS)
    assert got.basis == ("counter" if counter else "integral")
    middles = [(block.start_s + block.end_s) / 2 for block in BLOCKS]
    assert got.power_w_per_gpu_by_block == pytest.approx([50 + 50 * at for at in middles], rel=1e-3)
    assert np.mean(got.power_w_per_gpu_by_block) == pytest.approx(got.mean_power_w_per_gpu, rel=1e-6)


def test_blocks_of_too_few_readings_have_no_power() -> None:
    assert energy(rising(0.5), blocks=BLOCKS).power_w_per_gpu_by_block is None
    assert energy(rising(0.5)).energy_j is not None
    assert energy(rising()).power_w_per_gpu_by_block is None
