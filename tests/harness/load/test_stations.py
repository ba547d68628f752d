"""Client processes on hosts whose clocks count from another moment: one clock for all of them."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys

import pytest
from answers import answering
from drives import run
from loads import TRANSPORTS, job_for
from scripted import Server

from mtpbench.errors import RunError
from mtpbench.station import Station, ask_clock

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
    stations = (Station(host="here", directory=shared), Station(host="far", launch=FAR, directory=shared))
    with Server(answering(0.02)) as server:
        result = run(job_for(server.port, transport=transport), workers=2, stations=stations)
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
def test_the_offset_is_found_to_within_its_error():
    program = (
        "import sys, time, json\n"
        "for line in sys.stdin: print(json.dumps({'clock': time.perf_counter_ns()}), flush=True)\n"
    )

    async def measure():
        process = await asyncio.create_subprocess_exec(
            *FAR,
            sys.executable,
            "-c",
            program,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        found = await ask_clock(process, "far")
        process.stdin.close()
        await process.wait()
        return found

    found = asyncio.run(measure())
    assert abs(found.offset_ns - AHEAD_S * 1e9) <= found.error_ns


def test_a_process_that_does_not_tell_its_clock_is_named():
    async def measure():
        process = await asyncio.create_subprocess_exec(
            "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            await ask_clock(process, "the load client on n7")
        finally:
            process.stdin.close()
            await process.wait()

    with pytest.raises(RunError, match="the load client on n7 does not tell its clock"):
        asyncio.run(measure())


def test_on_one_host_there_is_no_clock_to_disagree(tmp_path):
    with Server(answering(0.02)) as server:
        result = run(job_for(server.port), workers=2)
    assert result.client.host_clock_error_s is None
    assert len(result.client.hosts) == 1
