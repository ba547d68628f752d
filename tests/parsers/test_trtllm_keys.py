"""TensorRT-LLM's lines and files against a table of its words and keys that is kept by hand: read, never run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version
from parsers.releases import HERE, SWEEPS, ladders_of

from mtpbench.engines.about import newest
from mtpbench.engines.releases import TENSORRT_LLM
from mtpbench.plan import Ladder
from mtpbench.records import File
from mtpbench.sweep import load_sweep

pytestmark = pytest.mark.parsers
TABLE: Mapping[str, Any] = yaml.safe_load((HERE / "trtllm_keys.yaml").read_text("utf-8"))
PATHS = [path for path in SWEEPS if load_sweep(path).points[0].engine.name == "trtllm"]
CASES = [
    pytest.param(path, version, id=f"{version}-{path.stem}")
    for path in PATHS
    for version in TABLE["releases"]
]


def kind_of(words: tuple[str, ...]) -> str:
    return "disaggregated" if "disaggregated" in words else "serve"


def keys_of(content: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a file that holds no mapping, with those above it before a dot."""
    for key, value in content.items():
        name = f"{above}.{key}" if above else key
        if isinstance(value, Mapping):
            yield from keys_of(value, name)
        else:
            yield name, value


def content_of(file: File) -> dict[str, Any]:
    """The file's keys; a placeholder is a number in it."""
    return dict(keys_of(yaml.safe_load(re.sub(r"@\{[^}]*\}", "1", file.text))))


def missing_in(table: Mapping[str, Any], names: Iterator[str] | list[str], version: str) -> set[str]:
    """Names that the table lacks, or has only of a later release."""
    return {
        name
        for name in names
        if name not in table or Version(table[name].get("since", "0")) > Version(version)
    }


def ladders(path: Path, version: str) -> list[Ladder]:
    """What the release can be given at all: before 1.3 nothing counts what MTP drafts, and no arm has it."""
    every = ladders_of(path, version)
    return [one for one in every if Version(version) >= Version("1.3.0rc1") or not one.first.draft_tokens]


@pytest.mark.parametrize(("path", "version"), CASES)
def test_every_word_of_trtllm_serve_is_in_the_table(path: Path, version: str) -> None:
    unknown: set[str] = set()
    for ladder in ladders(path, version):
        for process in ladder.deployment.processes:
            if "trtllm-serve" in process.argv:
                options = [word for word in process.argv if word.startswith("-")]
                unknown |= missing_in(TABLE["words"][kind_of(process.argv)], options, version)
    assert unknown == set()


@pytest.mark.parametrize(("path", "version"), CASES)
def test_every_value_of_which_a_release_knows_some_is_in_the_table(path: Path, version: str) -> None:
    unknown: set[str] = set()
    for ladder in ladders(path, version):
        for process in ladder.deployment.processes:
            for word, value in zip(process.argv, process.argv[1:], strict=False):
                if word in TABLE["values"] and "trtllm-serve" in process.argv:
                    unknown |= missing_in(TABLE["values"][word], [value], version)
    assert unknown == set()


@pytest.mark.parametrize(("path", "version"), CASES)
def test_every_key_of_its_files_is_in_the_table(path: Path, version: str) -> None:
    unknown: set[str] = set()
    for ladder in ladders(path, version):
        for process in ladder.deployment.processes:
            for file in process.files:
                table = TABLE["keys"][kind_of(process.argv)]
                unknown |= missing_in(table, list(content_of(file)), version)
    assert unknown == set()


@pytest.mark.parametrize(("path", "version"), CASES)
def test_what_a_measured_server_needs_is_in_its_file(path: Path, version: str) -> None:
    for ladder in ladders(path, version):
        for process in ladder.deployment.processes:
            for content in map(content_of, process.files):
                if kind_of(process.argv) == "serve" and process.role != "prefill":
                    needed = set(TABLE["needed"]["measured"])
                    if ladder.first.engine.router == "dynamo":
                        needed = set()  # --publish-metrics does it, and Dynamo's own page
                    assert {name for name in needed if content.get(name) is not True} == set()
                    if drafts := ladder.first.draft_tokens:
                        assert {content[name] for name in TABLE["needed"]["drafts"]} == {drafts}


def test_the_table_is_of_the_newest_release_that_mtpbench_knows() -> None:
    assert newest(TENSORRT_LLM) in TABLE["releases"]
