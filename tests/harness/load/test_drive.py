"""Real client processes: started together, told apart, each with its share."""

from __future__ import annotations

import dataclasses
import json
import threading
import time

import numpy as np
import pytest
from answers import CHUNKED, answering, chunk, token
from drives import over, run
from loads import TRANSPORTS, job_for
from scripted import Server, free_port

from mtpbench.errors import InputError
from mtpbench.load.capacity import EVENTS_PER_STREAM
from mtpbench.load.client import choose_transport, choose_workers
from mtpbench.load.client_spec import ClientSpec
from mtpbench.records import Load, Workload, from_json, to_json

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_whole_load_is_told_while_it_runs_and_in_its_result(transport):
    seen, origins = [], []
    began = time.perf_counter()
    with Server(answering(0.04)) as server:
        spec = job_for(server.port, transport=transport, time_scale=10.0)
        result = run(spec, progress=seen.append, on_origin=origins.append)
    assert [record.index for record in result.table.records()] == list(range(8))
    assert result.table.ok.all()
    assert (result.server_unreachable, result.cut_off, result.client_failed, result.notes) == (
        False,
        None,
        None,
        (),
    )
    assert origins == [result.origin]
    assert began < result.origin < time.perf_counter()
    assert len(seen) >= 2
    last = seen[-1]
    assert (last.ended, last.total, last.failed, last.in_flight) == (8, 8, 0, 0)
    assert last.output_tokens == 32
    assert 0 < seen[0].in_flight <= 2
    assert [told.elapsed_s for told in seen] == sorted(told.elapsed_s for told in seen)
    assert last.elapsed_s > float(result.table.end_s.max())
    client = result.client
    assert (client.transport, client.workers, client.unsent, client.late_starts) == (transport, 1, 0, 0)
    assert client.stamps in ("kernel", "user")
    assert (client.stamps == "kernel") == (client.clock_drift_s is not None)
    for figure in (client.reader_lag_p99_s, client.send_lag_p99_s, client.cpu_share, client.peak_rss_bytes):
        assert figure is not None
        assert figure >= 0
    assert client.achieved_concurrency is not None
    assert 1.0 < client.achieved_concurrency <= 2.0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_two_workers_keep_exactly_c_in_flight(transport):
    """The server begins no answer before C requests are there, and never has more than C."""
    all_there = threading.Barrier(4)
    lock, now, most = threading.Lock(), [0], [0]

    def first(peer, request):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        all_there.wait(10)
        with lock:
            now[0] -= 1
        return False

    with Server(answering(first=first)) as server:
        spec = job_for(server.port, transport=transport, concurrency=4, warmup=4, measured=36)
        result = run(spec, workers=2)
    assert len(result.table) == 40
    assert result.table.ok.all()
    assert most[0] == 4
    assert set(result.table.slot.tolist()) == set(range(4))
    assert result.client.workers == 2


@pytest.mark.parametrize("pacing", ["poisson", "constant", "trace"])
def test_an_open_loop_over_two_workers_sends_everything_by_its_arrivals(pacing, tmp_path):
    load, workload = Load(pacing=pacing, rate_rps=200.0), None
    if pacing == "trace":
        trace = tmp_path / "trace.jsonl"
        line = {"input_length": 8, "output_length": 4}
        lines = [{"timestamp": 15 * n, "category": ("even", "odd")[n % 2], **line} for n in range(40)]
        trace.write_text("\n".join(map(json.dumps, lines)))
        load = Load(pacing="trace")
        workload = Workload(isl=8, osl=4, prompts="dataset", dataset_path=str(trace))
    with Server(answering()) as server:
        spec = job_for(
            server.port, concurrency=20, warmup=0, measured=40, load=load, workload=workload, time_scale=2.0
        )
        result = run(spec, workers=2)
    _, schedule = spec.prepare()
    assert len(result.table) == 40
    assert result.table.ok.all()
    assert result.table.scheduled_s == pytest.approx(schedule.arrivals_s, abs=3e-6)
    if pacing == "trace":
        assert schedule.arrivals_s == pytest.approx(np.arange(40) * 0.015)
        assert result.table.category.tolist() == ["even", "odd"] * 20
    assert (result.table.sent_s >= result.table.scheduled_s - 2e-6).all()
    assert result.client.unsent == 0


def test_an_open_loop_under_a_small_ceiling_counts_its_late_starts():
    load = Load(pacing="constant", rate_rps=1000.0)
    with Server(answering(0.005)) as server:
        spec = job_for(server.port, concurrency=2, warmup=0, measured=20, load=load)
        result = run(spec, workers=2)
    assert result.table.ok.all()
    assert result.table.scheduled_s == pytest.approx(np.arange(20) / 1000, abs=2e-6)
    assert result.client.late_starts == 18
    assert result.client.send_lag_p99_s > 0.05


def test_a_server_that_is_not_there():
    """Each process ends after two refusals a slot, 40 in all; between them lies one pause."""
    result = run(job_for(free_port(), concurrency=40, warmup=0, measured=5000), workers=2)
    assert result.server_unreachable
    assert set(result.table.error) == {"connect_failed"}
    assert 80 <= len(result.table) <= 84
    assert result.client.pauses == len(result.table)
    assert 0.5 <= result.table.sent_s.max() < 0.9
    paused, refused = result.notes
    assert "paused" in paused
    assert "refused" in refused


def test_notes_say_what_a_reader_should_know():
    def forgetful(peer):
        while request := peer.read():
            if request.connection == peer.number and len(peer.server.requests) % 4 == 0:
                return
            peer.send(CHUNKED, *[chunk(token(n)) for n in range(1, 5)], b"0\r\n\r\n")

    with Server(forgetful) as server:
        result = run(job_for(server.port, concurrency=1, warmup=0, measured=6))
    assert result.table.ok.all()
    assert len(result.notes) == 2
    assert result.notes[0] == "6 streams ended without [DONE] but with usage and a finish reason"
    assert "sent again" in result.notes[1]


def test_the_address_chooses_the_transport():
    spec = job_for(1, transport="auto")
    assert choose_transport(spec) == "fast"
    secure = dataclasses.replace(spec, base_url="https://127.0.0.1:1")
    assert choose_transport(secure) == "aiohttp"
    asked = dataclasses.replace(spec, load=Load(transport="aiohttp"))
    assert choose_transport(asked) == "aiohttp"


def test_the_fast_transport_refuses_an_address_that_needs_tls():
    spec = dataclasses.replace(job_for(1, transport="fast"), base_url="https://127.0.0.1:1")
    with pytest.raises(InputError, match="https"):
        run(spec)


def test_workers_are_as_many_as_were_asked_for_but_never_more_than_slots(monkeypatch):
    spec = job_for(1, concurrency=3)
    assert [choose_workers(over(spec, count), 1e9) for count in (1, 2, 3, 9)] == [1, 2, 3, 3]
    asked = []
    monkeypatch.setattr("mtpbench.load.client.stored_ceiling", lambda: "what is known")
    monkeypatch.setattr("mtpbench.load.client.workers_for", lambda *said: asked.append(said) or 2)
    assert choose_workers(spec, 5000.0) == 2
    assert choose_workers(dataclasses.replace(spec, concurrency=1), 5000.0) == 1
    choose_workers(dataclasses.replace(spec, time_scale=4.0), None)
    assert asked == [(5000.0, "what is known")] * 2 + [(3 * EVENTS_PER_STREAM * 4, "what is known")]


def test_a_job_goes_to_its_processes_and_back():
    made = job_for(1, load=Load(pacing="gamma", rate_rps=3.0, burstiness=0.5), time_scale=2.0, handicap_s=0.1)
    spec = ClientSpec(**{field.name: getattr(made, field.name) for field in dataclasses.fields(ClientSpec)})
    assert from_json(ClientSpec, json.loads(json.dumps(to_json(spec)))) == spec
