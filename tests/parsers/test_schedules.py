"""The table of depths by load that `mtpbench schedule` writes, put to the engines' own validators."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mtpbench_analysis.schedule import find_schedule, to_engine_form
from stored_sweep import depth_runs

pytestmark = pytest.mark.parsers
BATCHES = (1, 12, 13, 50, 51, 256, 300)
EXPECTED = [3, 3, 1, 1, 0, 0, 0]
THREE_DEPTHS = {
    0: lambda load: 10.0 * load**0.9,
    1: lambda load: 18.0 * load**0.75,
    3: lambda load: 30.0 * load**0.55,
}
VLLM = """
import json, sys
from vllm.v1.spec_decode.dynamic.utils import build_dynamic_sd_schedule_lookup
table, batches = json.loads(sys.argv[1]), json.loads(sys.argv[2])
try:
    lookup = build_dynamic_sd_schedule_lookup(table, 512, 3)
except ValueError as error:
    print("ANSWER", json.dumps({"refused": str(error)}))
else:
    print("ANSWER", json.dumps({"depths": [lookup[batch] for batch in batches]}))
"""
SGLANG = """
import json, sys, tempfile
from sglang.srt.speculative.adaptive_spec_params import (
    AdaptiveSpeculativeParams, resolve_candidate_steps_from_config,
)
batches = json.loads(sys.argv[2])
with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    file.write(sys.argv[1])
    file.flush()
    try:
        steps = resolve_candidate_steps_from_config(file.name)
        params = AdaptiveSpeculativeParams(max(steps), file.name)
    except ValueError as error:
        print("ANSWER", json.dumps({"refused": str(error)}))
    else:
        # It never adapts: each batch has one candidate, whatever was accepted.
        for batch in batches * 40:
            params.on_verify_complete([0] * batch, batch)
        depths = [params.get_steps_for_batch(batch) for batch in batches]
        print("ANSWER", json.dumps({"depths": depths, "candidates": steps}))
"""


def ask(python: str, code: str, table: str, packages: str | None = None) -> dict[str, Any]:
    """What an engine's validator says of a table: the depth of each batch, or why it refuses it."""
    path = "" if packages is None else str(Path(os.environ["MTPBENCH_PARSERS"]) / packages)
    done = subprocess.run(
        ["nice", os.environ[python], "-c", code, table, json.dumps(BATCHES)],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert len(answers) == 1, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(answers[0].removeprefix("ANSWER "))
    return answer


def ask_vllm(table: str) -> dict[str, Any]:
    return ask("MTPBENCH_VLLM_PYTHON", VLLM, table, "vllm==0.33.0")


def ask_sglang(table: str) -> dict[str, Any]:
    return ask("MTPBENCH_SGLANG_PYTHON", SGLANG, table)


def test_vllm_takes_the_table_and_reads_the_depths_that_were_meant() -> None:
    table = to_engine_form(find_schedule(depth_runs(THREE_DEPTHS)), "vllm")
    assert ask_vllm(table) == {"depths": EXPECTED}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[[2, 16, 3]]", "must start at 1"),
        ("[[1, 16, 3], [16, 64, 2]]", "non-overlapping"),
        ("[[1, 16, -1]]", "must be >= 0"),
        ("[[1, 16]]", "3-item"),
    ],
)
def test_vllm_refuses_broken_tables(table: str, message: str) -> None:
    """So what takes ours is no rubber stamp."""
    assert message in ask_vllm(table)["refused"]


def test_sglang_takes_the_table_reads_the_depths_that_were_meant_and_never_adapts() -> None:
    table = to_engine_form(find_schedule(depth_runs(THREE_DEPTHS)), "sglang")
    assert ask_sglang(table) == {"depths": EXPECTED, "candidates": [0, 1, 3]}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('{"1": {"candidate_steps": []}}', "candidate_steps must be a list"),
        ('{"1": {"candidate_steps": [-1]}}', "non-negative"),
        ('{"update_interval": 5}', "at least one integer-string"),
    ],
)
def test_sglang_refuses_broken_tables(table: str, message: str) -> None:
    assert message in ask_sglang(table)["refused"]
