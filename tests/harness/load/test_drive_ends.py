"""How real client processes end: stopped, killed, refused, cancelled; nothing of them is left."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import threading
import time

import pytest
from answers import answering
from drives import over, processes, run, stalling
from loads import TRANSPORTS, job_for
from scripted import Server

from mtpbench.errors import InputError, RunError, SweepError
from mtpbench.load import client
from mtpbench.load.client import drive
from mtpbench.records import Load, Measurement, Workload

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_stop_ends_the_load_within_a_second_and_keeps_what_was_recorded(transport):
    begun = threading.Semaphore(0)

    async def main(spec):
        stop = asyncio.Event()
        task = asyncio.create_task(drive(over(spec, 2), stop=stop))
        for _ in range(4):
            await asyncio.to_thread(begun.acquire, timeout=20)
        stop.set()
        stopped = time.perf_counter()
        result = await task
        return result, time.perf_counter() - stopped

    with Server(stalling(begun, good=6)) as server:
        spec = job_for(server.port, transport=transport, concurrency=4, warmup=0, measured=4000)
        result, took_s = asyncio.run(main(spec))
    assert took_s < 1.0
    assert result.cut_off == "stopped"
    errors = list(result.table.error)
    assert errors.count(None) == 6
    assert errors.count("cut_off") == len(errors) - 6 == 4
    cut = [record for record in result.table.records() if record.error]
    assert {(record.error_detail, len(record.chunk_times_s)) for record in cut} == {("stopped", 1)}
    assert result.client.unsent == 4000 - 10


def test_a_stop_before_the_start_sends_next_to_nothing():
    async def main(spec):
        stop = asyncio.Event()
        stop.set()
        return await drive(over(spec, 1), stop=stop)

    with Server(stalling()) as server:
        result = asyncio.run(main(job_for(server.port, measured=1000)))
    assert result.cut_off == "stopped"
    assert len(result.table) <= 2


def test_the_points_timeout_keeps_what_was_recorded():
    rules = Measurement(request_timeout_s=60.0, point_timeout_s=0.3)
    with Server(stalling(good=3)) as server:
        result = run(job_for(server.port, concurrency=2, warmup=0, measured=50, rules=rules))
    assert result.cut_off == "point_timeout"
    assert list(result.table.error).count(None) == 3
    assert list(result.table.error).count("cut_off") == 2


def test_a_worker_that_is_killed_fails_its_requests_visibly_and_the_others_are_kept():
    begun = threading.Semaphore(0)
    killed = []

    async def main(spec):
        task = asyncio.create_task(drive(over(spec, 2)))
        for _ in range(4):
            await asyncio.to_thread(begun.acquire, timeout=20)
        killed.append(processes()[1])
        os.kill(killed[0], signal.SIGKILL)
        return await task

    def first(peer, request):
        """Worker 1's requests are the odd ones; everybody's first two stall for a while."""
        if len(peer.server.requests) <= 4:
            begun.release()
            time.sleep(0.3)
        return False

    with Server(answering(first=first)) as server:
        spec = job_for(server.port, concurrency=4, warmup=0, measured=20)
        result = asyncio.run(main(spec))
    assert "load client 1 was killed by signal 9" in result.client_failed
    records = {record.index: record for record in result.table.records()}
    assert {index for index, record in records.items() if record.error is None} == set(range(0, 20, 2))
    dead = [record for record in records.values() if record.error]
    assert [record.index for record in dead] == [1, 3]
    for record in dead:
        assert record.error == "worker_died"
        assert "killed by signal 9" in record.error_detail
        assert record.end_s > 0
    assert (result.cut_off, result.server_unreachable) == (None, False)
    assert (result.client.workers, result.client.late_starts, result.client.unsent) == (2, None, None)


def test_all_workers_killed_is_a_result_too():
    begun = threading.Semaphore(0)

    async def main(spec):
        task = asyncio.create_task(drive(over(spec, 2)))
        for _ in range(2):
            await asyncio.to_thread(begun.acquire, timeout=20)
        for pid in processes().values():
            os.kill(pid, signal.SIGKILL)
        return await task

    with Server(stalling(begun)) as server:
        result = asyncio.run(main(job_for(server.port, warmup=0)))
    assert list(result.table.error) == ["worker_died"] * 2
    assert result.client_failed is not None
    client = result.client
    assert (client.workers, client.stamps, client.reads) == (2, None, None)
    assert (client.late_starts, client.unsent, client.peak_rss_bytes) == (None, None, None)  # died with them


@pytest.mark.parametrize("count", [1, 3])
def test_a_missing_key_is_the_users_error_and_ends_all_workers(count, monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    with Server(answering()) as server:
        spec = job_for(server.port, concurrency=3, load=Load(api_key_env="TEST_KEY"))
        with pytest.raises(InputError, match=r"load\.api_key_env.*TEST_KEY"):
            run(spec, workers=count)
    assert server.requests == []


def test_a_dataset_that_is_not_there_is_the_users_error(tmp_path):
    workload = Workload(isl=8, osl=4, prompts="dataset", dataset_path=str(tmp_path / "none.jsonl"))
    with pytest.raises(SweepError, match=r"none\.jsonl"):
        run(job_for(1, workload=workload))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_host_without_an_address_is_named_before_any_process_starts(transport, monkeypatch):
    monkeypatch.setattr(client, "WorkerPool", None)
    spec = dataclasses.replace(job_for(1, transport=transport), base_url="http://me:pw@no such host:1/v9")
    with pytest.raises(RunError, match="the host 'no such host' of http://no such host:1 has no address"):
        run(spec)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_worker_that_dies_before_it_is_ready_is_a_failed_run(transport, monkeypatch):
    """Its host's name has become unknown since the parent asked."""
    monkeypatch.setattr(client, "resolve", lambda base_url: [])
    spec = dataclasses.replace(job_for(1, transport=transport), base_url="http://no such host:1")
    with pytest.raises(RunError, match=r"load client 0 .*before it was ready.*the host 'no such host'"):
        run(spec)


@pytest.mark.parametrize("early", [True, False])
def test_cancelling_the_drive_leaves_nothing_behind(early):
    """While the processes start, or while they run; the fixture looks for what is left."""
    begun = threading.Semaphore(0)

    async def main(spec):
        task = asyncio.create_task(drive(over(spec, 2)))
        if early:
            while len(processes()) < 2:
                await asyncio.sleep(0.005)
        else:
            await asyncio.to_thread(begun.acquire, timeout=20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return [other for other in asyncio.all_tasks() if other is not asyncio.current_task()]

    with Server(stalling(begun)) as server:
        assert asyncio.run(main(job_for(server.port, warmup=0))) == []
