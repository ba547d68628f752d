"""An engine is its module and one line in the registry: what else knows engines reads it there."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from mtpbench.cli import doctor
from mtpbench.engines import CODES, EMBEDDED, ENGINES, abouts, engine_of, explain, install_hint, vllm
from mtpbench.engines.about import About
from mtpbench.errors import SweepError
from mtpbench.hardware import lookup
from mtpbench.provenance import Started, collect
from mtpbench.records import Deployment, EngineLimits, Hardware, Point, Process
from mtpbench.sweep import load_sweep
from mtpbench.sweep.arm_confounds import compare_processes
from mtpbench.sweep.schema import schema_text

ROOT = Path(__file__).parents[3]
REAL = tuple(name for name in ENGINES if name != EMBEDDED)
ENGINE = "  name: simulated\n  clock: scaled\n  speed: 5\n  flags: {all: {stream-interval: 4}}\n"


class Toy:
    """An engine that nothing but this test knows."""

    ABOUT = About(
        title="toy",
        package="pytest",
        modules=("toyengine",),
        extra="toy",
        programs=("toy-serve",),
        environment=("TOY",),
        speculation=("guess",),
        deaths={"out_of_memory": "toy box full"},
        simulates=True,
    )
    RESET_PATH: str | None = None

    def check(self, point: Point, hardware: Hardware) -> None:
        """Nothing is refused."""

    def deploy(self, point: Point, hardware: Hardware) -> Deployment:
        """vLLM's, with another program."""
        return vllm.deploy(point, hardware)

    def limits(self, point: Point) -> Mapping[str, EngineLimits]:
        """None are known."""
        return {}

    def counters(self, metrics_text: str) -> None:
        """Nothing is counted."""


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "toy", Toy())  # type: ignore[arg-type]


def toy_sweep(write_sweep) -> tuple[Point, ...]:  # type: ignore[no-untyped-def]
    return load_sweep(write_sweep((ENGINE, "  name: toy\n  command: [toy-serve]\n"))).points


def test_a_new_engine_is_known_to_sweeps_and_their_schema(toy, write_sweep) -> None:  # type: ignore[no-untyped-def]
    assert "toy" in json.loads(schema_text())["$defs"]["EngineSpec"]["properties"]["name"]["enum"]
    first = toy_sweep(write_sweep)[0]
    assert (engine_of(first).ABOUT.title, first.simulated) == ("toy", True)
    with pytest.raises(
        SweepError, match=r"engine\.name: input should be 'simulated', .* or 'toy', not 'toi'"
    ):
        load_sweep(write_sweep((ENGINE, "  name: toi\n")))


def test_a_new_engine_is_known_to_the_doctor_and_to_hints(toy) -> None:  # type: ignore[no-untyped-def]
    assert ("toy", "not here (pip install 'mtpbench[toy]')") in list(doctor._inventory())
    assert install_hint(("toy-serve", "m")).startswith("get it with `pip install 'mtpbench[toy]'`")


def test_a_new_engine_is_known_to_provenance(toy, write_sweep, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("TOY_SPEED", "3")
    monkeypatch.setenv("TOYS", "none")
    found = collect(toy_sweep(write_sweep)[0], Started(executor="x"), "", "")
    assert found.packages["pytest"] == pytest.__version__
    assert {name: value for name, value in found.environment.items() if "TOY" in name} == {"TOY_SPEED": "3"}


def test_the_deaths_and_options_of_a_new_engine_are_known(toy) -> None:  # type: ignore[no-untyped-def]
    for line, code in (
        ("fatal: toy box full", "out_of_memory"),
        ("No module named 'toyengine'", "engine_not_installed"),
    ):
        cause = explain(line)
        assert cause is not None
        assert cause.code == code
    assert "toy" in cause.advice
    sides = [
        Process(name="a", role="aggregated", argv=("x", "--guess", n, "--seed", n), env={})
        for n in ("1", "2")
    ]
    assert compare_processes(*sides) == ["--seed is 2 instead of 1"]


def test_what_engines_say_about_themselves_fits_the_rest_of_the_project() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for about in abouts():
        assert about.extra is None or about.package in re.split(r"[>=<]", extras[about.extra][0])
        assert set(about.deaths) <= set(CODES)
        assert about.title is None or about.modules or about.programs
        assert all(re.compile(pattern) for pattern in about.deaths.values())


@pytest.mark.parametrize("name", REAL)
def test_every_real_engine_starts_with_the_command_of_the_sweep_and_the_schema_says_so(
    name: str, write_sweep
) -> None:  # type: ignore[no-untyped-def]
    router = "  router: dynamo\n" if name == "mocker" else ""
    points = load_sweep(
        write_sweep(
            (ENGINE, f"  name: {name}\n{router}  command: [my-engine, serve]\n"),
            ("acceptance: golden", "acceptance: measured"),
            ("1xTP4", "1xTP1"),
        )
    ).points
    workers = [
        process
        for process in engine_of(points[0]).deploy(points[0], lookup(points[0].hardware)).processes
        if process.role == "aggregated"
    ]
    assert all(process.argv[:2] == ("my-engine", "serve") for process in workers)
    # It said that only vllm, llamacpp and mocker take one.
    described = json.loads(schema_text())["$defs"]["EngineSpec"]["properties"]["command"]["description"]
    assert [other for other in REAL if other in described] == []
