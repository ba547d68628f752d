"""The user's own evaluation command (lm-eval, say), run against the live endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
from collections.abc import Mapping

from mtpbench.records import Evaluation


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
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    lines = output.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1].strip() if lines else ""
    if process.returncode:
        return Evaluation(command=command, score=None, reason=f"exit code {process.returncode}: {last}")
    score = read_score(last)
    reason = None if score is not None else f"the last line holds no score: {last!r}"
    return Evaluation(command=command, score=score, reason=reason)


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
