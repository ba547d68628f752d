"""The user's own evaluation command (lm-eval, say), run against the live endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Mapping

from mtpbench.executors.reaper import is_alive
from mtpbench.records import Evaluation

END_S = 10.0


async def run_evaluation(command: str, environment: Mapping[str, str], timeout_s: float) -> Evaluation:
    """The score that a shell command prints in its last line: a number, or JSON with a number under `score`.

    Args:
        command: run by `sh -c`, in a process group of its own.
        environment: added to the harness's own; says where the endpoint is.
        timeout_s: wall seconds, then the group is killed.
    """
    process = await asyncio.create_subprocess_shell(
        command,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except TimeoutError:
        return Evaluation(command=command, score=None, reason=f"no end after {timeout_s:g} s")
    finally:
        await _end_group(process)
    lines = output.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1].strip() if lines else ""
    if process.returncode:
        return Evaluation(command=command, score=None, reason=f"exit code {process.returncode}: {last}")
    score = read_score(last)
    reason = None if score is not None else f"the last line holds no score: {last!r}"
    return Evaluation(command=command, score=score, reason=reason)


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """Kill a process group and wait for all of it: a child that still ends would take load from the ladder.

    SIGKILL is carried out by each process when it is scheduled next, so the shell's end says nothing about
    its children's. One that the kernel holds (a dead file system) is waited for no longer than `END_S`.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    deadline = time.monotonic() + END_S
    while is_alive(process.pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)


def read_score(line: str) -> float | None:
    """The number in a line, or under `score` in its JSON object; None where there is none."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    if isinstance(value, dict):
        value = value.get("score")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
