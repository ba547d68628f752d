"""GuideLLM with one worker process, and prompts from a file.

Ten processes, its default, cost it as much on one core and spoil its latencies (TTFT by a second at C 2048).
Prompts that it makes up itself take it 35 ms each while the load runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import environments
from scenarios import Scenario

from clients.base import OFFLINE, Client, Report


def _command(python: Path, url: str, scenario: Scenario, folder: Path) -> Sequence[str]:
    if scenario.rate_per_s:
        pace = f"kind=constant,rate={scenario.rate_per_s}"
    else:
        pace = f"kind=concurrent,streams={scenario.concurrency}"
    backend = f"kind=openai_http,target={url},model=mock,request_format=/v1/completions"
    row = json.dumps({"prompt": "x " * scenario.isl, "output_tokens_count": scenario.osl})
    (folder / "prompts.jsonl").write_text(f"{row}\n" * scenario.requests)
    data = f"kind=json_file,path={folder / 'prompts.jsonl'}"
    tokenizer = f"kind=hf_auto,model={environments.craft_model()}"
    asked = ["--constraint", f"kind=max_requests,count={scenario.requests}", "--data", data]
    output = ["--output", f"kind=json,path={folder / 'result.json'}", "--disable-console"]
    program = str(python.with_name("guidellm"))
    return [
        program,
        "run",
        "--backend",
        backend,
        "--profile",
        pace,
        *asked,
        "--tokenizer",
        tokenizer,
        *output,
    ]


def _read(folder: Path, printed: str) -> Report:
    (said,) = json.loads((folder / "result.json").read_text())["benchmarks"]
    metrics = said["metrics"]
    return Report(
        completed=metrics["request_totals"]["successful"],
        ttft_ms=metrics["time_to_first_token_ms"]["successful"]["mean"],
        tpot_ms=metrics["inter_token_latency_ms"]["successful"]["mean"] or None,
        duration_s=said["duration"],
    )


CLIENT = Client(
    name="guidellm",
    label="GuideLLM",
    prepare=lambda: environments.install("bench-guidellm"),
    version=lambda python: f"guidellm {environments.version_of(python, 'guidellm')}",
    command=_command,
    read=_read,
    environment={**OFFLINE, "GUIDELLM__MAX_WORKER_PROCESSES": "1", "GUIDELLM__MAX_CONCURRENCY": "20000"},
    speed="slow",
)
