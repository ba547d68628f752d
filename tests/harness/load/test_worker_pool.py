"""Client processes on hosts whose clocks count from another moment: one clock for all of them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from answers import answering
from drives import over, processes, run
from loads import RULES, TRANSPORTS, job_for
from scripted import Server

from mtpbench.errors import RunError
from mtpbench.load import worker_pool
from mtpbench.load.client import drive
from mtpbench.load.worker_pool import LoadFolder, WorkerPool
from mtpbench.remote import HelperProcess, Host

pytestmark = pytest.mark.usefixtures("nothing_is_left")

AHEAD_S = 1000
FAR = ("unshare", "--time", "--monotonic", str(AHEAD_S), "--")
"""A namespace of its own for the monotonic clock: what another host's looks like from here."""


def far_is_possible():
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*FAR, "true"], capture_output=True, check=False).returncode == 0


elsewhere = pytest.mark.skipif(not far_is_possible(), reason="no time namespaces here")


@elsewhere
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_processes_on_two_clocks_start_together_and_agree(transport, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    hosts = (Host(name="here", directory=shared), Host(name="far", launch=FAR, directory=shared))
    with Server(answering(0.02)) as server:
        result = run(job_for(server.port, transport=transport), workers=2, hosts=hosts)
    table = result.table
    assert table.ok.all()
    assert len(table) == 8
    # Without the offset the far process would start 1000 s early, and its times would be as far off.
    assert float(table.sent_s.min()) >= 0
    assert float(table.end_s.max()) < 30
    firsts = [float(table.sent_s[table.slot == slot].min()) for slot in (0, 1)]
    assert abs(firsts[0] - firsts[1]) < 1
    assert result.client.hosts == ("here", "far")
    assert result.client.host_clock_error_s is not None
    assert 0 < result.client.host_clock_error_s < 1
    assert not list(shared.iterdir())


@elsewhere
def test_the_offset_is_found_to_within_its_error(tmp_path):
    async def measure():
        far = Host(name="far", launch=FAR)
        arguments = ("--out", str(tmp_path / "log"), "--gpus", "")
        helper = await HelperProcess.start("far", far, "mtpbench.power.agent", arguments, tmp_path / "errors")
        try:
            await helper.ready(20.0)
            return await helper.clock_offset()
        finally:
            await helper.stop()

    offset = asyncio.run(measure())
    assert abs(offset.offset_ns - AHEAD_S * 1e9) <= offset.error_ns


def silent(peer):
    peer.read()
    peer.await_close()


@pytest.mark.parametrize("told", [True, False], ids=["stopped", "point_timeout"])
def test_a_process_that_stands_still_is_ended_and_the_others_records_are_kept(told, monkeypatch):
    """Only it would have kept the point's time: no one else waits for it for ever."""
    monkeypatch.setattr(worker_pool, "LATE_S", 0.5)
    monkeypatch.setattr(worker_pool, "STOPPED_LATE_S", 0.5)

    async def freeze(stop):
        while len(server.requests) < 2:
            await asyncio.sleep(0.02)
        os.kill(processes()[0], signal.SIGSTOP)
        if told:
            stop.set()

    async def main():
        stop = asyncio.Event()
        freezing = asyncio.create_task(freeze(stop))
        result = await drive(over(job_for(server.port, rules=rules), 2), stop=stop)
        await freezing
        return result

    rules = dataclasses.replace(RULES, point_timeout_s=20.0 if told else 2.0)
    with Server(silent) as server:
        result = asyncio.run(main())
    assert result.client_failed is not None
    assert "load client 0 stood still" in result.client_failed
    assert set(result.table.error) == {"cut_off", "worker_died"}
    assert result.cut_off == ("stopped" if told else "point_timeout")


def test_a_process_that_stands_still_before_it_is_ready_keeps_no_stop_waiting(monkeypatch):
    monkeypatch.setattr(worker_pool, "STOPPED_LATE_S", 0.5)

    async def main():
        stop = asyncio.Event()
        task = asyncio.create_task(drive(over(job_for(server.port, rules=RULES), 1), stop=stop))
        while not (started := processes()):
            await asyncio.sleep(0.001)
        os.kill(started[0], signal.SIGSTOP)
        stop.set()
        async with asyncio.timeout(60):
            return await task

    with Server(silent) as server:
        result = asyncio.run(main())
    assert (len(result.table), result.cut_off) == (0, "stopped")
    assert "load client 0 died before it was ready (exit -9)" in str(result.client_failed)


def test_the_folder_of_a_killed_run_goes_with_the_next_load_and_that_of_a_living_one_stays(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from mtpbench.load.worker_pool import LoadFolder;"
        "folder = LoadFolder(Path(sys.argv[1])); (folder.path / '0.rows').write_text('x');"
        "print(folder.path, flush=True); sys.stdin.read()"
    )
    command = (sys.executable, "-c", program, str(tmp_path))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run_before:
        assert run_before.stdout
        left = Path(run_before.stdout.readline().strip())
        (foreign := tmp_path / f"{worker_pool.PREFIX}foreign").mkdir()
        LoadFolder(tmp_path).remove()
        assert left.exists()
        run_before.kill()
    assert left.exists()
    folder = LoadFolder(tmp_path)
    assert set(tmp_path.glob(f"{worker_pool.PREFIX}*")) == {foreign, folder.path}
    folder.remove()


def test_without_a_folder_for_temporary_files_the_error_names_the_variable(tmp_path):
    hosts = (Host(name="here", directory=tmp_path / "gone"),)
    with pytest.raises(RunError, match=r"no temporary folder for the load client .*TMPDIR"):
        WorkerPool(job_for(1), 1, hosts)


def test_on_one_host_there_is_no_clock_to_disagree(tmp_path):
    with Server(answering(0.02)) as server:
        result = run(job_for(server.port), workers=2)
    assert result.client.host_clock_error_s is None
    assert len(result.client.hosts) == 1
