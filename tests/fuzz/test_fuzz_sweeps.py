"""Sweep files: whatever stands in them, `mtpbench plan` ends with 0 or 2 and says where."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from mtpbench.cli import app
from mtpbench.errors import InputError
from mtpbench.plan import command_line, plan_sweep
from mtpbench.sweep import load_sweep, simulate
from odd_yaml import REAL, SIMULATED, as_yaml, mutated, odd_files

ENGINES = ("vllm", "sglang", "trtllm", "llamacpp", "dynamo-mocker")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "s.yaml"


def outcome(path: Path, data: bytes) -> str | None:
    """What is said of a file; None where it is planned. Anything but an error of the user's goes through."""
    path.write_bytes(data)
    try:
        sweep = load_sweep(path)
        for estimate in plan_sweep(sweep):
            assert [command_line(process) for process in estimate.ladder.deployment.processes]
        simulate(sweep)
    except InputError as error:
        return str(error)
    return None


def check(path: Path, data: bytes) -> None:
    said = outcome(path, data)
    assert said is None or (str(path) in said and len(said) < 5000)
    said and said.encode()


@settings(max_examples=250)
@given(text=odd_files(SIMULATED))
def test_one_odd_value(path: Path, text: str) -> None:
    check(path, text.encode("utf-8", "surrogatepass"))


@settings(max_examples=250)
@given(text=odd_files(REAL), engine=st.sampled_from(ENGINES))
def test_one_odd_value_of_a_real_engine(path: Path, text: str, engine: str) -> None:
    check(path, text.replace('"vllm"', f'"{engine}"', 1).encode("utf-8", "surrogatepass"))


@settings(max_examples=60)
@given(text=odd_files(SIMULATED))
def test_the_command(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    done = CliRunner().invoke(app, ["plan", str(path)])
    assert done.exception is None or isinstance(done.exception, InputError | SystemExit)


@settings(max_examples=300)
@given(data=mutated(as_yaml(SIMULATED).encode()))
def test_bytes_of_a_file_changed(path: Path, data: bytes) -> None:
    check(path, data)


@settings(max_examples=200)
@given(
    data=st.one_of(
        st.binary(max_size=300), st.text("-?:,[]{}#&*!|>'\"%@` \n\tab0", max_size=200).map(str.encode)
    )
)
def test_any_bytes(path: Path, data: bytes) -> None:
    check(path, data)
