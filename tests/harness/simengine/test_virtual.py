import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from simulated_points import LIMITS, aggregated, make_point, split

from mtpbench.errors import InputError, UnsupportedError
from mtpbench.load.pacer import RequestCounts, Schedule, draw_arrivals_s
from mtpbench.metrics.window import mean_in_flight, whole_window
from mtpbench.records import EngineLimits, Fault, Load, Workload
from mtpbench.simengine.profile_fit import measure_steady
from mtpbench.simengine.virtual import simulate_point
from mtpbench.workload import Lengths, draw_lengths


def play(point, limits=LIMITS, *, rounds=3):
    counts = RequestCounts(warmup=point.concurrency, measured=rounds * point.concurrency)
    schedule = Schedule.independent(point.load, counts, point.concurrency, point.seed)
    return simulate_point(point, limits, draw_lengths(point.workload, counts.total, point.seed), schedule)


def batch_point(per_gpu, drafts):
    """DEP16 decoding at a fixed batch: one-token prompts, so that prefill weighs nothing."""
    work = Workload(isl=1, osl=128, range_ratio=0.9)
    return make_point(split((8, "DEP8"), (1, "DEP16")), 16 * per_gpu, drafts, workload=work)


def decode_speed(per_gpu, drafts):
    run = play(batch_point(per_gpu, drafts), rounds=2)
    return measure_steady(run.requests, 1).interactivity_tps


def test_mtp_wins_at_small_batches_and_loses_at_large_ones():
    """Three drafts on DEP16 pay up to 128 sequences per GPU and cost at 256; one draft still pays there."""
    off, one, three = ({n: decode_speed(n, k) for n in (8, 128, 256)} for k in (0, 1, 3))
    assert three[8] / off[8] > 1.8
    assert three[128] > off[128]
    assert three[256] < off[256]
    assert one[256] > off[256] > three[256]


@pytest.mark.parametrize("topology", [aggregated(2, "TP8"), split((2, "TP8"), (1, "DEP8"))], ids=str)
@pytest.mark.parametrize("drafts", [0, 3])
def test_every_request_of_a_run_gets_exactly_its_tokens(topology, drafts):
    run = play(make_point(topology, 24, drafts))
    table = run.requests
    assert len(table) == 96
    assert (table.output_tokens == table.asked_output_tokens).all()
    assert (np.diff(table.chunk_times_s)[np.diff(table.chunk_rows) == 0] >= 0).all()
    assert (np.diff(table.chunk_tokens)[np.diff(table.chunk_rows) == 0] > 0).all()
    assert (table.chunk_tokens[table.chunk_offsets[:-1]] == 1).all()
    assert (table.first_chunk_s > table.sent_s).all()
    assert (table.end_s == table.last_chunk_s).all()
    assert set(table.slot) == set(range(24))
    assert table.warmup.sum() == 24


def test_a_slot_sends_its_next_request_when_the_last_one_ended():
    table = play(make_point(aggregated(1, "TP8"), 8, 3)).requests
    for slot in range(8):
        rows = np.flatnonzero(table.slot == slot)
        assert table.sent_s[rows[1:]] == pytest.approx(table.end_s[rows[:-1]])


@pytest.mark.parametrize("pacing", ["poisson", "constant"])
def test_an_open_loop_starts_by_the_clock_and_waits_for_a_slot_only_under_its_ceiling(pacing):
    load = Load(pacing=pacing, rate_rps=4.0)
    point = make_point(aggregated(1, "TP8"), 64, 3, load=load)
    table = play(point, rounds=2).requests
    arrivals_s = draw_arrivals_s(load, len(table), point.seed)
    assert table.scheduled_s == pytest.approx(arrivals_s, abs=2e-6)
    assert table.sent_s == pytest.approx(arrivals_s, abs=2e-6)
    assert table.end_s.max() < arrivals_s[-1] + 30
    tight = play(dataclasses.replace(point, concurrency=2), rounds=10).requests
    assert set(tight.slot) == {0, 1}
    assert (tight.sent_us >= tight.scheduled_us).all()
    late = tight.sent_us > tight.scheduled_us
    assert late.sum() > 10
    ends = np.sort(tight.end_us)
    assert np.isin(tight.sent_us[late], ends).all()
    assert mean_in_flight(tight, whole_window(tight)) <= 2


def test_an_open_loop_goes_on_after_a_time_without_any_request():
    load = Load(pacing="constant", rate_rps=0.01)
    table = play(make_point(aggregated(1, "TP8"), 1, 0, load=load), rounds=3).requests
    assert table.sent_s.tolist() == pytest.approx([0, 100, 200, 300])
    assert (table.end_s - table.sent_s < 90).all()


def test_the_slots_of_a_closed_loop_open_over_its_ramp():
    table = play(make_point(aggregated(1, "TP8"), 8, 3, load=Load(ramp_s=0.8))).requests
    firsts = [table.sent_s[table.slot == slot].min() for slot in range(8)]
    assert firsts == pytest.approx(np.arange(8) * 0.1)
    assert len(table) == 32
    for slot in range(8):
        rows = np.flatnonzero(table.slot == slot)
        assert (table.sent_us[rows[1:]] == table.end_us[rows[:-1]]).all()


def test_littles_law_holds():
    """Mean requests in flight = arrival rate × mean time in the system, over the steady part."""
    table = play(make_point(split((1, "DEP8"), (1, "TP8")), 32, 3), rounds=30).requests
    steady = table.sent_s[table.warmup].max(), table.sent_s.max()
    inside = (table.end_s > steady[0]) & (table.end_s <= steady[1])
    rate = inside.sum() / (steady[1] - steady[0])
    assert rate * (table.end_s - table.sent_s)[inside].mean() == pytest.approx(32, rel=0.05)


def test_throughput_rises_and_then_plateaus():
    work = Workload(isl=8192, osl=256, range_ratio=0.8)
    rates = [
        measure_steady(play(make_point(split((1, "DEP8"), (1, "DEP8")), c, 0, workload=work)).requests, 16)
        for c in (8, 64, 256, 512)
    ]
    tput = [outcome.tput_tps_per_gpu for outcome in rates]
    assert tput[1] > 2 * tput[0]
    assert tput[3] == pytest.approx(tput[2], rel=0.1)


def test_acceptance_by_the_counters_is_the_golden_length():
    """About 25,000 drafts at 2.49: four standard errors are 0.03."""
    run = play(make_point(split((1, "DEP8"), (2, "TP8")), 64, 3, workload=Workload(isl=64, osl=256)))
    last = {sample.process: sample.counters for sample in run.counters}
    assert set(last) == {"decode-0", "decode-1"}
    drafts = sum(c.drafts for c in last.values())
    accepted = sum(c.accepted_tokens for c in last.values())
    assert drafts > 20_000
    assert 1 + accepted / drafts == pytest.approx(2.49, abs=0.03)
    assert all(c.draft_tokens == 3 * c.drafts for c in last.values())


def test_counters_are_missing_with_a_reason_when_speculation_is_off():
    run = play(make_point(aggregated(1, "TP8"), 4, 0))
    assert {(s.counters, s.reason) for s in run.counters} == {(None, "speculation is off")}


def test_mtp_silently_off_is_as_slow_as_off_and_has_no_counters():
    fault = (Fault(kind="mtp_silently_off"),)
    struck = play(make_point(aggregated(1, "TP8"), 4, 3, faults=fault))
    off = play(make_point(aggregated(1, "TP8"), 4, 0))
    assert struck.requests.end_s == pytest.approx(off.requests.end_s)
    assert all(sample.counters is None for sample in struck.counters)


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, again, other = (play(make_point(aggregated(1, "DEP8"), 16, 3, seed=s)) for s in (1, 1, 2))
    assert (first.requests.chunk_times_s == again.requests.chunk_times_s).all()
    assert first.counters == again.counters
    assert first.power == again.power
    assert len(first.requests.chunk_times_s) != len(other.requests.chunk_times_s)


def test_power_covers_every_gpu_and_energy_only_rises():
    """Each GPU lies between idle and the limit, idle decode GPUs included, and power integrates to energy."""
    run = play(make_point(split((2, "DEP8"), (1, "TP8")), 4, 0))
    by_gpu = {}
    for sample in run.power:
        by_gpu.setdefault((sample.process, sample.gpu), []).append(sample)
    assert len(by_gpu) == 24
    for samples in by_gpu.values():
        joules = [s.energy_j for s in samples]
        assert joules == sorted(joules)
        assert all(170 - 1e-6 <= s.power_w <= 1200 + 1e-6 for s in samples)
        total = sum(b.power_w * (b.time_s - a.time_s) for a, b in pairwise(samples))
        assert total == pytest.approx(joules[-1] - joules[0])


@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_power_reaches_past_the_last_request_however_its_end_is_rounded(concurrency):
    run = play(make_point(split((1, "TP8"), (1, "TP8")), concurrency, 0))
    assert run.power[-1].time_s > run.requests.end_s.max() + 1e-6


def test_a_long_point_keeps_a_few_hundred_samples():
    work = Workload(isl=64, osl=1024)
    run = play(make_point(aggregated(1, "TP8"), 2, 0, workload=work), rounds=30)
    times = {sample.time_s for sample in run.counters}
    assert 200 < len(times) <= 514
    assert len(times) * 0.25 < run.requests.end_s.max()


def test_stream_interval_gathers_tokens_into_events():
    limits = {"aggregated": EngineLimits(max_running=64, prefill_chunk_tokens=8192, stream_interval=50)}
    point = make_point(aggregated(1, "TP8"), 2, 3, workload=Workload(isl=64, osl=1024))
    table = play(point, limits).requests
    assert set(table.chunk_counts) <= {21, 22}
    assert (table.output_tokens == 1024).all()


def test_requests_of_one_token_end_with_their_first_event():
    work = Workload(isl=64, osl=1)
    for topology in (aggregated(1, "TP8"), split((1, "TP8"), (1, "TP8"))):
        table = play(make_point(topology, 4, 3, workload=work)).requests
        assert (table.chunk_counts == 1).all()


def test_too_few_lengths_are_refused():
    lengths = Lengths(prompt_tokens=np.array([5]), output_tokens=np.array([5]))
    schedule = Schedule.independent(Load(), RequestCounts(warmup=4, measured=4), 4, 1)
    with pytest.raises(InputError, match="lengths of 1 requests were given, the schedule sends 8"):
        simulate_point(make_point(aggregated(1, "TP8"), 4, 0), LIMITS, lengths, schedule)


def test_faults_that_need_processes_are_refused():
    point = make_point(aggregated(1, "TP8"), 4, 0, faults=(Fault(kind="stall"),))
    with pytest.raises(UnsupportedError, match="stall needs processes"):
        play(point)
