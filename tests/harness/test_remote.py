"""A helper process: how it says that it is ready, answers, dies, and is ended with all that it started."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mtpbench import remote as module
from mtpbench.errors import RunError
from mtpbench.reaper import is_alive
from mtpbench.remote import HelperFailed, HelperProcess, Host

Start = Callable[..., "asyncio.Future[HelperProcess]"]

ECHO = """
import json, sys
print('{"ready": true, "port": 7}', flush=True)
for line in sys.stdin:
    word, _, number = line.strip().partition(" ")
    print(json.dumps({"n": number, "word": word}), flush=True)
"""


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a program as a helper: (its text, what stands in front of its command)."""

    async def start(text: str, *launch: str) -> HelperProcess:
        (tmp_path / "program.py").write_text(text)
        host = Host(
            name="n7",
            launch=launch,
            environment={**os.environ, "PYTHONPATH": str(tmp_path)},
            python=sys.executable,
        )
        return await HelperProcess.start("the helper on n7", host, "program", (), tmp_path / "errors")

    return start


async def test_what_a_prologue_prints_is_skipped_and_the_first_message_read(start: Start) -> None:
    helper = await start(f"print('welcome')\nprint(3)\n{ECHO}")
    assert await helper.ready(20.0) == {"ready": True, "port": 7}
    assert await helper.ask("tick") == {"n": "1", "word": "tick"}
    assert await helper.ask("tock") == {"n": "2", "word": "tock"}
    assert helper.running
    await helper.stop()
    assert (helper.running, helper.process.returncode) == (False, 0)
    with pytest.raises(HelperFailed, match="the helper on n7 does not run"):
        await helper.ask("tick")


async def test_a_line_longer_than_any_message_is_skipped_like_a_prologue(start: Start) -> None:
    deep = "print('[' * 5000 + ']' * 5000)"
    helper = await start(f"print('x' * 200_000)\n{deep}\nprint('9' * 5000)\n{ECHO}")
    assert (await helper.ready(20.0))["port"] == 7
    await helper.stop()


@pytest.mark.parametrize("value", ["'soon'", "None", "1.5", "True", "-1", "2**63", "[1]"])
async def test_an_answer_without_its_number_ends_the_helper(start: Start, value: str) -> None:
    helper = await start(ECHO.replace('"word": word', f'"clock": {value}'))
    await helper.ready(20.0)
    with pytest.raises(HelperFailed, match=r"the helper on n7 answered 'clock' with .* as clock"):
        await helper.clock_offset()
    assert not helper.running


async def test_an_answer_that_comes_late_is_taken_for_no_other(start: Start) -> None:
    helper = await start(ECHO)
    await helper.ready(20.0)
    given_up = asyncio.create_task(helper.ask("tick"))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    assert (await helper.ask("tock"))["word"] == "tock"
    await helper.stop()


async def test_one_that_dies_is_told_with_its_exit_status_and_its_last_line(start: Start) -> None:
    helper = await start("import sys\nsys.exit('first\\nno such GPU')")
    with pytest.raises(HelperFailed, match=r"^the helper on n7 died \(exit 1\): no such GPU$") as caught:
        await helper.ready(20.0)
    assert caught.value.exit_status == 1
    assert isinstance(caught.value, RunError)
    assert helper.last_words() == "first\nno such GPU"


async def test_one_that_says_nothing_is_killed_with_what_it_started(start: Start, tmp_path: Path) -> None:
    child = f"import subprocess\nsubprocess.Popen(['sleep', '60'])\nopen({str(tmp_path / 'up')!r}, 'w')\n"
    helper = await start(f"{child}import time\ntime.sleep(60)")
    while not (tmp_path / "up").exists():
        await asyncio.sleep(0.01)
    with pytest.raises(HelperFailed, match=r"was not ready in 0\.1 s: no message") as caught:
        await helper.ready(0.1)
    assert caught.value.exit_status is None
    assert not helper.running
    while is_alive(helper.process.pid):
        await asyncio.sleep(0.01)


async def test_one_that_does_not_answer_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.1)
    helper = await start("print('{\"ready\": true}', flush=True)\nimport time\ntime.sleep(60)")
    await helper.ready(20.0)
    with pytest.raises(HelperFailed, match=r"did not answer 'clock' in 0\.1 s"):
        await helper.clock_offset()
    assert not helper.running


async def test_a_launcher_is_asked_to_end_first_so_that_it_can_end_what_it_launched(
    start: Start, tmp_path: Path
) -> None:
    """As srun does: a SIGTERM goes on to the step, a SIGKILL would leave it on its node."""
    launcher = (
        f"trap 'echo ended > {tmp_path / 'step'}; exit 9' TERM; echo up >&2; while :; do sleep 0.05; done"
    )
    helper = await start("", "sh", "-c", launcher)
    while helper.last_words() != "up":
        await asyncio.sleep(0.01)
    begun = time.monotonic()
    with pytest.raises(HelperFailed, match="was not ready"):
        await helper.ready(0.1)
    assert time.monotonic() - begun < 4
    assert (tmp_path / "step").read_text() == "ended\n"


async def test_a_program_that_can_not_be_started_is_an_error_of_the_system(start: Start) -> None:
    with pytest.raises(FileNotFoundError):
        await start("", "/nowhere/srun")


async def test_one_that_prints_without_end_does_not_hold_its_end_up(start: Start) -> None:
    helper = await start(f"{ECHO}\nprint('x' * 500_000, flush=True)")
    await helper.ready(20.0)
    await helper.stop()
    assert helper.process.returncode == 0
