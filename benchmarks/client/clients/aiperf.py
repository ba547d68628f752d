"""NVIDIA AIPerf with one worker and one record processor, which is what one core is best used with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import environments
from scenarios import Scenario

from clients.base import Client, Report


def _command(python: Path, url: str, scenario: Scenario, folder: Path) -> Sequence[str]:
    if scenario.rate_per_s:
        pace = ["--request-rate", str(scenario.rate_per_s), "--arrival-pattern", "constant"]
    else:
        pace = ["--concurrency", str(scenario.concurrency)]
    tokenizer = str(environments.craft_model())
    server = ["--model", "mock", "--tokenizer", tokenizer, "--url", url, "--endpoint-type", "completions"]
    lengths = [
        "--isl",
        str(scenario.isl),
        "--isl-stddev",
        "0",
        "--osl",
        str(scenario.osl),
        "--osl-stddev",
        "0",
    ]
    processes = ["--workers-max", "1", "--record-processors", "1"]
    lean = ["--use-server-token-count", "--ui", "none", "--no-gpu-telemetry", "--no-server-metrics"]
    output = ["--profile-export-level", "summary", "--output-artifact-dir", str(folder)]
    asked = ["--streaming", "--request-count", str(scenario.requests), "--extra-inputs", "ignore_eos:true"]
    return [
        str(python.with_name("aiperf")),
        "profile",
        *server,
        *pace,
        *asked,
        *lengths,
        *processes,
        *lean,
        *output,
    ]


def _read(folder: Path, printed: str) -> Report:
    said = json.loads((folder / "profile_export_aiperf.json").read_text())
    return Report(
        completed=int(said["request_count"]["avg"]),
        ttft_ms=said["time_to_first_token"]["avg"],
        tpot_ms=(said.get("inter_token_latency") or {}).get("avg"),
        duration_s=said["benchmark_duration"]["avg"],
    )


CLIENT = Client(
    name="aiperf",
    label="AIPerf",
    prepare=lambda: environments.install("bench-aiperf"),
    version=lambda python: f"aiperf {environments.version_of(python, 'aiperf')}",
    command=_command,
    read=_read,
    # Told to be offline it takes a folder's name for one on the hub: the hub is nowhere instead.
    # By itself it stops at 2,500 connections per worker without saying so.
    environment={
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "DO_NOT_TRACK": "1",
        "AIPERF_HTTP_CONNECTION_LIMIT": "19000",
    },
    speed="slow",
)
