"""vLLM started by other words than `vllm serve`, as its CPU build needs, and its limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mtpbench.engines import engine_of
from mtpbench.plan import ladders_of
from mtpbench.records import EngineLimits
from mtpbench.sweep import load_sweep


def test_the_real_demo_starts_vllm_by_its_module_and_names_no_path_of_a_machine(sweeps: Path) -> None:
    sweep = load_sweep(sweeps / "demo-real.yaml")
    off, mtp = (ladder.deployment.processes[0] for ladder in ladders_of(sweep.points))
    assert off.argv[:3] == ("nice", "-n", "10")
    assert off.argv[3:6] == ("@{env:MTPBENCH_VLLM_PYTHON}", "-m", "vllm.entrypoints.openai.api_server")
    assert off.argv[off.argv.index("--model") + 1] == "@{env:MTPBENCH_CRAFTED}/mimo-deep"
    assert not [word for word in (*off.argv, *mtp.argv) if word.startswith("/")]
    assert sweep.info.confounds == ()


RANKS = (
    (
        "  name: simulated\n  clock: scaled\n  speed: 5\n  flags: {all: {stream-interval: 4}}\n",
        "  name: vllm\n  router: dynamo\n{flags}",
    ),
    ("aggregated: 1xTP4, concurrency: [1, 2]", "prefill: 1xTP4, decode: 2xDEP4, concurrency: [2]"),
)


@pytest.mark.parametrize(
    ("flags", "running", "tokens"),
    [("", 256, 8192), ("  flags: {all: {max-num-seqs: 64, max-num-batched-tokens: 4096}}\n", 64, 4096)],
    ids=["defaults", "given"],
)
def test_limits_are_per_data_parallel_rank(
    write_sweep: Callable[..., Path], flags: str, running: int, tokens: int
) -> None:
    (name, engine), topology = RANKS
    point = load_sweep(write_sweep((name, engine.format(flags=flags)), topology)).points[0]
    assert engine_of(point).limits(point) == {
        "prefill": EngineLimits(max_running=running, prefill_chunk_tokens=tokens),
        "decode": EngineLimits(max_running=4 * running, prefill_chunk_tokens=4 * tokens),
    }
