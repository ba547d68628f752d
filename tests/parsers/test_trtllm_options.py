"""Every line and file for TensorRT-LLM against a table of its options, kept by hand: read, never run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

from mtpbench.engines.about import newest
from mtpbench.engines.releases import PINS, TENSORRT_LLM
from mtpbench.records import File, Process
from mtpbench.sweep import load_sweep
from parsers.releases import HERE, SWEEPS, ladders_of

pytestmark = pytest.mark.parsers
TABLE: Mapping[str, Any] = yaml.safe_load((HERE / "trtllm_options.yaml").read_text("utf-8"))
PATHS = [path for path in SWEEPS if load_sweep(path).points[0].engine.name == "trtllm"]
RELEASES = (PINS[newest(PINS)]["tensorrt-llm"], newest(TENSORRT_LLM))
ROUTER_KEYS = (
    *("hostname", "port", "backend", "context_servers.num_instances", "context_servers.urls"),
    *("generation_servers.num_instances", "generation_servers.urls"),
)
"""Of `trtllm-serve disaggregated`: llmapi/disagg_utils.py."""
ROUTER_ROWS = [{"key": key, "since": None} for key in ROUTER_KEYS]


def refused(rows: list[Mapping[str, Any]], kind: str, names: list[str], release: str) -> set[str]:
    """Names that the table lacks, has only of a later release, or knows to be gone."""
    known = {row[kind]: row for row in rows}
    version = Version(release)
    return {
        name
        for name in names
        if name not in known
        or (known[name]["since"] is not None and Version(known[name]["since"]) > version)
        or ("removed" in known[name] and Version(known[name]["removed"]) <= version)
    }


def keys_of(content: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in content.items():
        yield from keys_of(value, f"{above}{key}.") if isinstance(value, Mapping) else [above + key]


def written_in(file: File) -> list[str]:
    """The keys of a file; a placeholder is a number in it."""
    return list(keys_of(yaml.safe_load(re.sub(r"@\{[^}]*\}", "1", file.text))))


def processes(path: Path, release: str) -> list[Process]:
    """Those that `trtllm-serve` is told by words, not Dynamo's, which has a parser that is asked."""
    ladders = ladders_of(path, release)
    return [
        p for ladder in ladders for p in ladder.deployment.processes if p.files or "trtllm-serve" in p.argv
    ]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_word_and_key_is_one_that_the_release_is_known_to_take(path: Path, release: str) -> None:
    found: set[str] = set()
    asked = processes(path, release)
    for process in asked:
        words = [word for word in process.argv if word.startswith("-") and "trtllm-serve" in process.argv]
        is_router = "disaggregated" in process.argv
        program = "trtllm-serve disaggregated" if is_router else "trtllm-serve"
        found |= refused(TABLE[program], "option", words, release)
        for file in process.files:
            names = written_in(file)
            found |= (
                set(names) - {*ROUTER_KEYS} if is_router else refused(TABLE["yaml"], "key", names, release)
            )
    assert asked
    assert found == set()
