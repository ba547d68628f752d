"""Client processes on hosts whose clocks count from another moment: one clock for all of them."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import pytest
from answers import answering
from drives import run
from loads import TRANSPORTS, job_for
from scripted import Server

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


def test_on_one_host_there_is_no_clock_to_disagree(tmp_path):
    with Server(answering(0.02)) as server:
        result = run(job_for(server.port), workers=2)
    assert result.client.host_clock_error_s is None
    assert len(result.client.hosts) == 1
