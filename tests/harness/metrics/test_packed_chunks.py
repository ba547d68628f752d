"""Statistics folded over batches of chunks are those of the plain way, with every chunk in memory."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from measured import make_point, make_request
from mtpbench.measure import measure
from mtpbench.metrics.chunk_latency import summarise
from mtpbench.metrics.packed_chunks import PackedTable, Requests, batches, smallest
from mtpbench.metrics.request_table import UNKNOWN, RequestTable, whole_us
from mtpbench.metrics.window import Window, inside
from mtpbench.records import Distribution, Load, PointResult, Rates
from mtpbench.store import RawPoint

POINT = make_point(concurrency=2, load=Load(stall_s=2.0))
GAPS_US = st.one_of(st.integers(0, 5), st.integers(0, 3_000_000), st.integers(2**21, 2**32))


def pack(table: RequestTable, chunks: int) -> PackedTable:
    """The table in small integers, in batches of about so many chunks."""
    small = tuple(
        dataclasses.replace(batch, gaps_us=smallest(batch.gaps_us), brought=smallest(batch.brought))
        for batch in batches(table, chunks)
    )
    return PackedTable(**table.row_columns(), chunk_offsets=table.chunk_offsets, chunks=small)


def result_of(table: Requests, **changes) -> PointResult:
    return measure(dataclasses.replace(POINT, **changes), RawPoint(requests=table))


@st.composite
def tables(draw) -> RequestTable:
    """Two slots; warm-up, failed requests, requests without chunks or counts, usage that corrects counts."""
    records, free_us = [], [0, 0]
    for index in range(draw(st.integers(0, 12))):
        slot = index % 2
        sent = free_us[slot] + draw(st.integers(0, 1000))
        times = (sent + np.cumsum(draw(st.lists(GAPS_US, max_size=6)), dtype=np.int64)).tolist()
        tokens = np.cumsum(draw(st.lists(st.integers(0, 5), min_size=6, max_size=6))).tolist()[: len(times)]
        free_us[slot] = max([sent, *times]) + draw(st.integers(0, 1000))
        failed = not times or draw(st.integers(0, 9)) == 0
        more = {
            "warmup": index < draw(st.integers(0, 2)),
            "end_s": free_us[slot] * 1e-6,
            "chunk_tokens": tuple(tokens) if draw(st.integers(0, 4)) else None,
            "output_tokens": None if failed else max([1, *tokens]) + draw(st.integers(0, 1)),
            "prompt_tokens": draw(st.one_of(st.none(), st.integers(1, 500))),
            "error": "http_503" if failed else None,
        }
        records.append(make_request(index, slot, sent * 1e-6, [us * 1e-6 for us in times], **more))
    return RequestTable.from_records(records)


@given(tables(), st.integers(1, 9), st.booleans())
def test_no_figure_depends_on_where_a_batch_ends(table, chunks, open_loop):
    load = dataclasses.replace(POINT.load, pacing="poisson" if open_loop else "closed", rate_rps=1.0)
    assert result_of(pack(table, chunks), load=load) == result_of(table, load=load)


@given(tables(), st.integers(1, 9))
def test_a_packed_table_unpacks_to_the_bit(table, chunks):
    packed = pack(table, chunks)
    for again, plain in (
        (packed.unpacked(), table),
        (packed.summarised(), table.summarised()),
    ):
        for field in dataclasses.fields(RequestTable):
            np.testing.assert_array_equal(getattr(again, field.name), getattr(plain, field.name))
    assert list(packed.records()) == list(table.records())


@given(tables(), st.integers(1, 9))
def test_folded_figures_are_those_of_the_plain_way(table, chunks):
    result = result_of(pack(table, chunks))
    for rates in (result.steady, result.whole):
        if rates is not None:
            check_rates(table, rates)
    counted = table.ok & ~table.warmup & (table.chunk_counts > 0)
    if result.steady is not None:
        counted &= inside(table.end_s, Window(start_s=result.steady.start_s, end_s=result.steady.end_s))
    check_gaps(table, counted, result)


def test_a_table_of_many_batches_is_folded_like_any_other():
    """More chunks than a batch has, so that gaps are counted in place as well as sorted."""
    rng = np.random.default_rng(3)
    records, free = [], [0, 0]
    for index in range(24):
        gaps_us = (rng.gamma(4, 15_000, 30_000) * rng.choice([1, 400], 30_000, p=[0.9999, 0.0001])).astype(
            int
        )
        times = free[index % 2] + np.cumsum(gaps_us)
        free[index % 2] = int(times[-1]) + 10
        tokens = np.cumsum(rng.integers(1, 5, len(times)))
        more = {"chunk_tokens": tuple(tokens.tolist()), "output_tokens": int(tokens[-1]), "warmup": index < 2}
        records.append(
            make_request(
                index, index % 2, float(times[0] - gaps_us[0]) * 1e-6, (times * 1e-6).tolist(), **more
            )
        )
    table = RequestTable.from_records(records)
    assert len(list(batches(table))) > 3
    result = result_of(table)
    assert result == result_of(pack(table, 100_000))
    assert result.steady is not None
    check_rates(table, result.steady)
    counted = ~table.warmup & inside(
        table.end_s, Window(start_s=result.steady.start_s, end_s=result.steady.end_s)
    )
    check_gaps(table, counted, result)
    assert result.stalls is not None
    assert result.stalls.count > 5
    assert result.blocks is not None
    tput = np.mean(result.blocks.tput_tps_per_gpu)
    assert tput == pytest.approx(result.steady.tput_tps_per_gpu, rel=1e-6)


# ------------------------------------------------------------------------------------------- the plain way


def check_rates(table: RequestTable, rates: Rates) -> None:
    """Token rates from a token count for every chunk."""
    window = Window(start_s=rates.start_s, end_s=rates.end_s)
    rows, counts = table.chunk_rows, table.chunk_counts
    outputs = np.where(table.output_tokens == UNKNOWN, 0, table.output_tokens).astype(np.float64)
    by_chunk = np.diff(table.chunk_tokens.astype(np.float64), prepend=0.0)
    firsts, lasts = table.chunk_offsets[:-1][counts > 0], table.chunk_offsets[1:][counts > 0] - 1
    by_chunk[firsts] = table.chunk_tokens[firsts]
    said = (table.output_tokens != UNKNOWN)[counts > 0]
    by_chunk[lasts[said]] += outputs[counts > 0][said] - table.chunk_tokens[lasts[said]]
    by_chunk = np.where(table.chunk_tokens == UNKNOWN, (outputs / np.maximum(counts, 1))[rows], by_chunk)
    in_window = np.where(inside(table.chunk_times_s, window), by_chunk, 0.0)
    within = np.where(table.ok, np.bincount(rows, weights=in_window, minlength=len(table)), 0.0)
    prompts = np.where(table.prompt_tokens == UNKNOWN, table.asked_prompt_tokens, table.prompt_tokens)
    inputs = (prompts * within / np.where(table.output_tokens > 0, table.output_tokens, np.inf)).sum()
    assert rates.output_tokens == pytest.approx(within.sum(), rel=1e-12)
    assert rates.input_tokens == pytest.approx(inputs, rel=1e-12)
    tput = (within.sum() + inputs) / window.duration_s / POINT.topology.gpus
    assert rates.tput_tps_per_gpu == pytest.approx(tput, rel=1e-12)


def check_gaps(table: RequestTable, counted, result: PointResult) -> None:
    """Gaps, time per token and stalls from an array with every gap."""
    rows = table.chunk_rows
    later = np.flatnonzero((rows[1:] == rows[:-1]) & counted[rows[1:]]) + 1
    gap_s = np.diff(whole_us(table.chunk_times_s))[later - 1] / 1e6
    same(result.icl_s, summarise(gap_s), rel=1e-12)
    # A difference of two float seconds is off by what a double of their size can't hold.
    off_s = 2 * math.ulp(float(table.chunk_times_s.max(initial=1.0)))
    same(result.icl_s, summarise(np.diff(table.chunk_times_s)[later - 1]), rel=1e-12, abs=off_s)
    brought = np.diff(table.chunk_tokens)[later - 1]
    if len(later) and not (table.chunk_tokens[later] == UNKNOWN).any():
        some = brought > 0
        same(result.token_gap_s, summarise(np.repeat(gap_s[some] / brought[some], brought[some])), rel=1e-12)
    else:
        assert result.token_gap_s is None
    if not len(later):
        assert result.stalls is None
        return
    assert result.stalls is not None
    stalled = gap_s > POINT.load.stall_s
    assert result.stalls.count == stalled.sum()
    assert result.stalls.requests == len(np.unique(rows[later][stalled]))
    assert result.stalls.longest_s == pytest.approx(gap_s.max(), rel=1e-12)
    share = gap_s[stalled].sum() / max(gap_s.sum(), 1e-12)
    assert result.stalls.share == pytest.approx(share, rel=1e-12)
    longest = sorted((float(gap_s[rows[later] == row].max()) for row in np.unique(rows[later])), reverse=True)
    worst = [seconds for seconds in longest[:5] if seconds > POINT.load.stall_s]
    assert [seconds for _, seconds in result.stalls.worst] == pytest.approx(worst, rel=1e-12)


def same(got: Distribution | None, plain: Distribution | None, **tolerance: float) -> None:
    assert (got is None) == (plain is None)
    if got is not None and plain is not None:
        figures = (
            {k: v for k, v in dataclasses.asdict(one).items() if v is not None} for one in (got, plain)
        )
        assert next(figures) == pytest.approx(next(figures), **tolerance)
