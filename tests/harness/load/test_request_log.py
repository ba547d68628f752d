"""What client processes write down, and the table that it becomes."""

from __future__ import annotations

import numpy as np
import pytest
from answers import event, last_usage, text, usage
from hypothesis import given
from hypothesis import strategies as st

from mtpbench.load.pacer import Schedule, Turn
from mtpbench.load.request_log import (
    FLUSH_BYTES,
    ROW,
    WORKER_DIED,
    RequestEnd,
    RequestLog,
    WorkerDeath,
    read_table,
)
from mtpbench.load.stream import Stream
from mtpbench.load.usage import TOKEN_BITS
from mtpbench.workload import Lengths


def schedule(total, *, after=None, warmup=0, scale=1.0, concurrency=4):
    heads, following = Schedule.chained(np.asarray([-1] * total if after is None else after, np.int64))
    return Schedule(
        concurrency=concurrency,
        warmup=warmup,
        heads=heads,
        arrivals_s=None,
        following=following,
        delay_s=np.zeros(total),
        time_scale=scale,
    )


def lengths(total):
    return Lengths(
        prompt_tokens=np.arange(total, dtype=np.int64) + 100,
        output_tokens=np.arange(total, dtype=np.int64) + 200,
    )


def add(log, index, *, slot=0, chunks=2, failure=None, base_us=0, counted=True):
    """A request of `index` + 1 tokens a chunk, its chunks 10 µs apart."""
    stream = Stream()
    for n in range(1, chunks + 1):
        said = {"usage": usage(n * (index + 1))} if counted else {}
        stream.feed(base_us + 10 * n, event(text("x", "length" if n == chunks else None, **said)))
    if failure is None:
        stream.feed(base_us, event(last_usage(chunks * (index + 1))) + event("[DONE]"))
    ended = RequestEnd(
        scheduled_us=base_us,
        sent_us=base_us + 1,
        end_us=base_us + 10 * chunks + 5,
        asked_prompt_tokens=100 + index,
        asked_output_tokens=200 + index,
    )
    log.add(
        Turn(index=index, warmup=index < 1, slot=slot), ended, stream, stream.answer(failure is None, failure)
    )


def table_of(folder, total, workers=1, deaths=(), **options):
    return read_table(folder, schedule(total, **options), workers, deaths, lengths(total))


def test_requests_come_back_ordered_by_index_with_their_chunks(tmp_path):
    for worker, indices in enumerate(([4, 0, 2], [3, 1])):
        log = RequestLog(tmp_path, worker)
        for index in indices:
            add(log, index, slot=worker, chunks=index, base_us=1000 * index)
        assert log.ended == len(indices)
        log.close()
    table = table_of(tmp_path, 5, workers=2)
    records = list(table.records())
    assert [record.index for record in records] == list(range(5))
    assert [record.slot for record in records] == [0, 1, 0, 1, 0]
    assert [record.warmup for record in records] == [True] + [False] * 4
    for index, record in enumerate(records):
        base_s = index * 1e-3
        assert record.scheduled_s == pytest.approx(base_s)
        assert record.sent_s == pytest.approx(base_s + 1e-6)
        assert record.chunk_times_s == pytest.approx([base_s + n * 1e-5 for n in range(1, index + 1)])
        assert record.end_s == pytest.approx(base_s + 1e-5 * index + 5e-6)
        assert record.chunk_tokens == tuple(n * (index + 1) for n in range(1, index + 1))
        assert (record.asked_prompt_tokens, record.asked_output_tokens) == (100 + index, 200 + index)
        assert record.output_tokens == index * (index + 1)


def test_stamps_that_lie_a_hair_apart_are_put_in_order(tmp_path):
    log = RequestLog(tmp_path, 0)
    for index, times_us in enumerate(([5, 3, 4, 9], [1, 2], [8, 2])):
        stream = Stream()
        stream.chunks.extend(us << TOKEN_BITS | count for count, us in enumerate(times_us, 1))
        end = RequestEnd(scheduled_us=0, sent_us=0, end_us=10, asked_prompt_tokens=1, asked_output_tokens=4)
        log.add(Turn(index=index, warmup=False, slot=0), end, stream, stream.answer(False, ("x", "y")))
    log.close()
    assert table_of(tmp_path, 3).chunk_times_us.tolist() == [5, 5, 5, 9, 1, 2, 8, 8]


def test_times_are_engine_seconds(tmp_path):
    log = RequestLog(tmp_path, 0)
    add(log, 0, base_us=1_000_000)
    log.close()
    (record,) = table_of(tmp_path, 1, scale=10.0).records()
    assert (record.scheduled_s, record.chunk_times_s[0]) == (10.0, 10.0001)


def test_failures_keep_code_and_detail_and_what_is_unknown(tmp_path):
    log = RequestLog(tmp_path, 0)
    add(log, 0, chunks=0, failure=("disconnected", "the server … said \ud800 \n no"))
    add(log, 1, chunks=2, counted=False)
    add(log, 2, chunks=2)
    log.close()
    failed, uncounted, good = table_of(tmp_path, 3).records()
    assert (failed.error, failed.error_detail) == ("disconnected", "the server … said \\ud800 \n no")
    assert (failed.prompt_tokens, failed.output_tokens, failed.finish_reason) == (None, None, None)
    assert (failed.chunk_times_s, failed.chunk_tokens) == ((), ())
    assert (uncounted.error, uncounted.chunk_tokens, uncounted.output_tokens) == (None, None, 4)
    assert (good.error, good.error_detail, good.finish_reason) == (None, None, "length")


def test_one_chunk_without_a_count_makes_a_rows_counts_unknown(tmp_path):
    log = RequestLog(tmp_path, 0)
    stream = Stream()
    stream.feed(1, event(text("a")) + event(text("b", "stop", usage=usage(2))) + event("[DONE]"))
    ended = RequestEnd(scheduled_us=0, sent_us=0, end_us=1, asked_prompt_tokens=1, asked_output_tokens=1)
    log.add(Turn(index=0, warmup=False), ended, stream, stream.answer(True))
    add(log, 1)
    log.close()
    first, second = table_of(tmp_path, 2).records()
    assert (first.chunk_tokens, first.finish_reason) == (None, "stop")
    assert second.chunk_tokens == (2, 4)


def test_nothing_was_written(tmp_path):
    assert len(table_of(tmp_path, 3, workers=2)) == 0
    RequestLog(tmp_path, 0).close()
    assert len(table_of(tmp_path, 3, workers=2)) == 0


def test_what_has_ended_reaches_the_files_before_the_end(tmp_path):
    log = RequestLog(tmp_path, 0)
    add(log, 0)
    assert len(table_of(tmp_path, 1)) == 0
    log.flush()
    assert len(table_of(tmp_path, 1)) == 1
    long = Stream()
    long.chunks.extend([1 << TOKEN_BITS] * (FLUSH_BYTES // 8 // 4))
    ended = RequestEnd(scheduled_us=0, sent_us=0, end_us=1, asked_prompt_tokens=1, asked_output_tokens=1)
    for index in range(1, 10):
        log.add(Turn(index=index, warmup=False), ended, long, long.answer(False, ("timeout", "")))
    assert 5 <= len(table_of(tmp_path, 10)) < 10
    log.close()
    assert len(table_of(tmp_path, 10)) == 10


@given(cut=st.integers(0, ROW.itemsize * 3), texts_cut=st.integers(0, 200))
def test_a_file_that_was_half_written_gives_its_whole_rows(cut, texts_cut, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    log = RequestLog(folder, 0)
    for index in range(3):
        add(log, index, chunks=0, failure=("timeout", f"detail {index}"))
    log.close()
    rows, texts = folder / "0.rows", folder / "0.texts"
    rows.write_bytes(rows.read_bytes()[:cut])
    texts.write_bytes(texts.read_bytes()[: max(texts_cut, 0)])
    records = list(table_of(folder, 3).records())
    assert [record.index for record in records] == list(range(cut // ROW.itemsize))
    lines = texts.read_bytes().count(b"\n")
    for record in records[:lines]:
        assert (record.error, record.error_detail) == ("timeout", f"detail {record.index}")


def test_a_dead_workers_requests_that_were_not_written_fail_visibly(tmp_path):
    """Worker 1 of two has heads 1, 3, 5, 7; it started three of them and wrote one."""
    kept = RequestLog(tmp_path, 0)
    for index in (0, 2, 4, 6):
        add(kept, index)
    kept.close()
    dead = RequestLog(tmp_path, 1)
    dead.start(3)
    add(dead, 1)
    dead.flush()
    add(dead, 3)  # ended, but still in its memory
    death = WorkerDeath(worker=1, at_us=7_000_000, detail="load client 1 was killed by signal 9")
    records = list(table_of(tmp_path, 8, workers=2, deaths=[death], warmup=4, scale=2.0).records())
    assert [record.index for record in records] == [0, 1, 2, 3, 4, 5, 6]
    assert [record.error for record in records] == [None] * 3 + [WORKER_DIED, None, WORKER_DIED, None]
    for record in (records[3], records[5]):
        assert record.error_detail == death.detail
        assert record.scheduled_s == record.sent_s == record.end_s == 14.0
        assert (record.prompt_tokens, record.output_tokens, record.chunk_times_s) == (None, None, ())
        assert (record.asked_prompt_tokens, record.asked_output_tokens) == (
            100 + record.index,
            200 + record.index,
        )
        assert record.warmup == (record.index < 4)


def test_a_worker_that_died_before_it_started_has_lost_nothing(tmp_path):
    death = WorkerDeath(worker=0, at_us=5, detail="it is dead")
    assert len(table_of(tmp_path, 4, workers=2, deaths=[death])) == 0
    RequestLog(tmp_path, 0)
    assert len(table_of(tmp_path, 4, workers=2, deaths=[death])) == 0


def test_a_later_turn_of_a_session_dies_with_its_worker_too(tmp_path):
    """Its head was written, so its next turn was on its way or about to be."""
    log = RequestLog(tmp_path, 0)
    log.start(1)
    add(log, 0)
    log.flush()
    death = WorkerDeath(worker=0, at_us=5, detail="it is dead")
    records = list(table_of(tmp_path, 3, after=[-1, 0, 1], deaths=[death]).records())
    assert [(record.index, record.error) for record in records] == [(0, None), (1, WORKER_DIED)]
