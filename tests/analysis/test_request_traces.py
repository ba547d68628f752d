"""Latencies read back from a stored point are those that its result was made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from measured import OFF, make_request
from mtpbench.records import PointResult
from mtpbench.store import StoredPoint, read_sweep
from mtpbench.store.columns import read_packed, write_requests
from mtpbench_analysis.frame import PointSet, merge
from mtpbench_analysis.importers import read_source
from mtpbench_analysis.report.panel import Traces
from mtpbench_analysis.traces import (
    counted_requests,
    latencies,
    narrow_traces,
    quantiles,
    read_traces,
    request_trace,
)
from stored_sweep import provenance
from traced_sweep import loaded, measured, open_point, point_of, write_traced


def stored_as(directory: Path, point: object, raw: object, result: PointResult) -> StoredPoint:
    directory.mkdir(exist_ok=True)
    write_requests(raw.requests, directory / "requests.parquet")  # type: ignore[attr-defined]
    return StoredPoint(point=point, result=result, provenance=provenance(), directory=directory)  # type: ignore[arg-type]


def check_agrees(stored: StoredPoint) -> None:
    table = read_packed(stored.directory / "requests.parquet").summarised()
    found = latencies(table, counted_requests(table, stored), stored.point.load.open)
    for values, told in zip(
        found, (stored.result.ttft_as_waited_s(stored.point.load), stored.result.tpot_s), strict=True
    ):
        assert told is not None
        assert len(values) == told.count
        assert np.percentile(values, (10, 50, 90, 99)) == pytest.approx(
            [told.p10, told.p50, told.p90, told.p99]
        )
    trace = request_trace(stored)
    assert trace.reason is None
    assert (trace.ttft_s[0], trace.ttft_s[-1]) == pytest.approx((found[0].min(), found[0].max()))


def test_the_quantiles_are_those_of_the_result(tmp_path: Path) -> None:
    stored = read_sweep(write_traced(tmp_path)).points
    assert len(stored) == 6
    assert stored[0].result.tpot_basis == "known_first_chunk"
    for one in stored:
        assert one.result.steady is not None
        assert one.result.requests > one.result.ttft_s.count  # type: ignore[union-attr]
        check_agrees(one)


def test_an_open_loop_counts_every_measured_request(tmp_path: Path) -> None:
    requests = [replace(r, scheduled_s=r.sent_s - 0.1 * (r.index % 3)) for r in loaded(1, 4, 1.0)]
    stored = stored_as(tmp_path / "p", *measured(open_point(), requests))
    check_agrees(stored)
    assert stored.result.ttft_s is not None
    assert stored.result.ttft_s.count == stored.result.requests


@pytest.mark.parametrize("kind", ["no counts", "one chunk", "failed"])
def test_odd_requests_count_as_the_harness_counts_them(tmp_path: Path, kind: str) -> None:
    changes = {
        "no counts": {"chunk_tokens": None},
        "failed": {"error": "timeout", "error_detail": "after 3 s"},
    }
    requests = loaded(3, 2, 1.0)
    for i in range(5, 30, 3):
        one = requests[i]
        requests[i] = (
            replace(one, **changes[kind])  # type: ignore[arg-type]
            if kind in changes
            else make_request(one.index, one.slot, one.sent_s, one.chunk_times_s[:1], end_s=one.end_s)
        )
    stored = stored_as(tmp_path / "p", *measured(point_of(OFF, 2), requests))
    check_agrees(stored)
    assert request_trace(stored).examples == ({"timeout": "after 3 s"} if kind == "failed" else {})


def test_few_requests_are_told_one_by_one() -> None:
    values = np.array([3.0, 1.0, 2.0, 9.0])
    assert quantiles(values).tolist() == [1, 2, 3, 9]
    many = np.random.default_rng(1).exponential(size=5000)
    found = quantiles(many)
    assert len(found) == 101
    assert found[[0, 50, 99]] == pytest.approx(np.quantile(many, [0, 0.5, 0.99]))
    assert quantiles(np.empty(0)).tolist() == []


def test_what_does_not_agree_or_cannot_be_read_is_not_drawn(tmp_path: Path) -> None:
    point, raw, result = measured(point_of(OFF, 2), loaded(1, 2, 1.0))
    stored = stored_as(tmp_path / "p", point, raw, result)
    assert result.ttft_s is not None
    other = replace(stored, result=replace(result, ttft_s=replace(result.ttft_s, count=3)))
    assert "result.json says 3: `mtpbench recompute`" in str(request_trace(other).reason)
    (stored.directory / "requests.parquet").write_bytes(b"not parquet")
    trace = request_trace(stored)
    assert len(trace.ttft_s) == 0
    assert "can't be read" in str(trace.reason)


def test_traces_stand_in_the_order_of_measuring_and_know_their_points(tmp_path: Path) -> None:
    directory = write_traced(tmp_path, failing="overloaded")
    (sweep,) = read_traces([directory, directory / "sweep.json"])
    assert {one.point for one in sweep.points} == set(read_source(directory).points)
    began = [one.stored.provenance.started_utc for one in sweep.points]
    assert began == sorted(began)
    assert len(sweep.missing) == 1
    assert all(len(one.power.times_s) == 120 for one in sweep.points)
    assert sweep.points[-1].requests.examples == {"http_503": "overloaded"}
    # Merged with other sources, runs whose start was not recorded get one, and still are the same runs.
    other = PointSet(sources=("x",), points=read_source(directory).points[:1])
    merged = merge([read_source(directory), other])
    assert all(run.start is not None for run in merged.points)
    (both,) = narrow_traces([sweep], merged.points)
    assert len(both.points) == len(sweep.points)
    assert len(Traces([sweep]).numbers(merged.points[:-1])) == len(sweep.points)
    (few,) = narrow_traces([sweep], [p for p in read_source(directory).points if p.arm == "mtp"])
    assert {one.stored.point.arm.name for one in few.points} == {"mtp"}
