from __future__ import annotations

import dataclasses

import pytest

from mtpbench.engines.parts import Placement, fill, resolve
from mtpbench.errors import InputError
from mtpbench.records import File, Process

PLACEMENT = Placement(
    hosts={"router": "node1", "decode-0": "node2"},
    ports={("decode-0", "http"): 8001},
    directory="/runs/1",
    python="/usr/bin/python3",
)


def test_argv_environment_and_files_are_filled_in() -> None:
    process = Process(
        name="router",
        role="router",
        argv=("@{python}", "--worker", "http://@{host:decode-0}:@{port:decode-0/http}"),
        env={"STATE": "@{dir}/state"},
        files=(File(path="@{dir}/c.yaml", text="url: @{host:router}\n"),),
    )
    ready = resolve(process, PLACEMENT)
    assert ready.argv == ("/usr/bin/python3", "--worker", "http://node2:8001")
    assert ready.env == {"STATE": "/runs/1/state"}
    assert ready.files == (File(path="/runs/1/c.yaml", text="url: node1\n"),)


@pytest.mark.parametrize("text", ["@{port:decode-1/http}", "@{host:nobody}", "@{what}", "@{dir:x}"])
def test_an_unknown_placeholder_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(InputError, match=r"unknown placeholder .* known: @\{dir\}.*@\{port:decode-0/http\}"):
        fill(text, PLACEMENT)


def test_json_braces_are_left_alone() -> None:
    assert fill('{"method":"mtp"}', PLACEMENT) == '{"method":"mtp"}'


def test_a_variable_of_the_executor_s_environment_is_filled_in() -> None:
    placement = dataclasses.replace(PLACEMENT, environment={"MODELS": "/data/models"})
    assert fill("@{env:MODELS}/mimo", placement) == "/data/models/mimo"


def test_a_variable_that_is_not_set_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"@\{env:MODELS\} needs the environment variable MODELS, which is"):
        fill("@{env:MODELS}/mimo", PLACEMENT)
