"""What `mtpbench doctor` says, and what the plan makes of a measured ceiling."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mtpbench.load import capacity
from mtpbench.load.capacity import Ceiling, Rung, store_ceiling, stored_ceiling, usable_cores, workers_for


def rung(**changes: float) -> Rung:
    values = {
        "streams": 512,
        "events_per_s": 25_000.0,
        "cpu_share": 0.3,
        "lag_p50_s": 0.001,
        "lag_p99_s": 0.01,
        "coalesced_share": 0.0,
        "mock_late": 0.0,
        "stamps": "kernel",
    }
    return Rung(**{**values, **changes})  # type: ignore[arg-type]


def ceiling(events_per_s: float, cores: int | None = None) -> Ceiling:
    return Ceiling(
        events_per_s=events_per_s,
        at_least=False,
        rungs=(rung(),),
        measured_utc="2026-11-24T00:00:00+00:00",
        cores=cores or usable_cores(),
    )


def test_a_machine_is_described(cli) -> None:
    code, out, _ = cli("doctor")
    assert code == 0
    for name in ("vllm", "sglang", "trtllm", "llama.cpp", "GPUs, power", "Slurm", "load client"):
        assert name in out
    assert "its ceiling was not measured here yet" in out


def test_a_sweep_is_told_what_it_needs(cli, sweeps: Path) -> None:
    store_ceiling(ceiling(1000.0))
    code, out, _ = cli("doctor", str(sweeps / "demo.yaml"))
    assert code == 0
    assert "one process takes 1,000 events/s (measured 2026-11-24)" in out
    needs = {line.split()[0]: line.split()[-1] for line in out.splitlines() if "_c" in line}
    assert len(needs) == 10
    assert next(n for name, n in needs.items() if "off" in name and "_c1_" in name) == "1"
    assert next(n for name, n in needs.items() if "off" in name and "_c64_" in name) == str(usable_cores())


def test_the_plan_names_the_processes_and_what_that_rests_on(cli, sweeps: Path) -> None:
    _, before, _ = cli("plan", str(sweeps / "demo.yaml"), "--no-commands")
    assert "assumed to take 40,000" in before
    store_ceiling(ceiling(200_000.0))
    _, after, _ = cli("plan", str(sweeps / "demo.yaml"), "--no-commands")
    assert "load client: 1 process for up to" in after
    assert "takes 200,000 on this machine" in " ".join(after.split())


def test_a_ceiling_of_another_machine_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MTPBENCH_CACHE", str(tmp_path))
    assert stored_ceiling() is None
    store_ceiling(ceiling(5000.0))
    assert stored_ceiling() == ceiling(5000.0)
    store_ceiling(ceiling(5000.0, cores=usable_cores() + 1))
    assert stored_ceiling() is None
    (tmp_path / "client-ceiling.json").write_text("{")
    assert stored_ceiling() is None


def test_half_a_ceiling_is_planned_with_and_a_core_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "usable_cores", lambda: 4)
    assert [workers_for(rate, ceiling(100_000.0, 4)) for rate in (1, 50_000, 50_001, 1e9)] == [1, 1, 2, 4]
    assert workers_for(40_001, None) == 2


@pytest.mark.parametrize(
    ("changes", "kept_up", "mock"),
    [
        ({}, True, False),
        ({"lag_p99_s": 0.02}, False, False),
        ({"lag_p99_s": None}, False, False),
        ({"coalesced_share": 0.02}, False, False),
        ({"mock_late": 0.06}, True, True),
    ],
)
def test_a_rung_says_who_was_the_limit(changes, kept_up: bool, mock: bool) -> None:
    assert (rung(**changes).kept_up, rung(**changes).mock_was_the_limit) == (kept_up, mock)


def test_the_client_is_measured_against_the_built_in_mock(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtpbench.load.ceiling.STREAMS", (4, 8))
    monkeypatch.setattr("mtpbench.load.ceiling.OUTPUT_TOKENS", 32)
    code, out, _ = cli("doctor", "--client")
    assert code == 0, out
    assert "4 streams" in out
    assert "8 streams" in out
    stored = stored_ceiling()
    assert stored is not None
    assert [r.streams for r in stored.rungs] == [4, 8]
    assert stored.rungs[0].events_per_s > 0


# --- the engines' parsers ---

STAND_INS = Path(__file__).resolve().parents[2] / "fixtures" / "parsers"
ASKED = """
sweep: asked
question: Would the engine take it?
model: {{path: "{model}", served_name: m, precision: fp4}}
hardware: gb200-nvl72
engine: {{name: sglang, version: 0.5.12.post1, flags: {{all: {flags}}}}}
workload: {{isl: 64, osl: 64}}
arms: {{off: }}
topologies: [{{aggregated: 1xTP4, concurrency: [1]}}, {{aggregated: 1xTP8, concurrency: [1]}}]
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A sweep with some options, for an engine that is installed here: a stand-in, found by `python3`."""
    programs, model = tmp_path / "bin", tmp_path / "model"
    programs.mkdir()
    model.mkdir()
    (model / "config.json").write_text("{}", "utf-8")
    starts = f'#!/bin/sh\nPYTHONPATH={STAND_INS} exec {sys.executable} "$@"\n'
    (programs / "python3").write_text(starts, "utf-8")
    (programs / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_GPU", "1")

    def write(flags: str) -> Path:
        path = tmp_path / "asked.yaml"
        path.write_text(ASKED.format(model=model, flags=flags), "utf-8")
        return path

    return write


def test_an_engine_that_takes_every_line_ends_with_0(cli, asked: Callable[[str], Path]) -> None:
    code, out, _ = cli("doctor", asked("{page-size: 4}"), "--parsers")
    assert code == 0, out
    assert "3 command lines: 3 accepted, 0 refused, 0 not asked" in out
    assert "accepted (parser, config, checks, ports)" in " ".join(out.split())


def test_a_refusal_is_told_in_the_engine_s_words_and_ends_with_1(cli, asked: Callable[[str], Path]) -> None:
    code, out, _ = cli("doctor", asked("{no-such: 1, enable-dp-attention: true}"), "--parsers")
    assert code == 1
    assert "unknown option (parser, 3 lines): unrecognized arguments: --no-such" in out
    assert "deprecated (config, 3 lines): '--enable-dp-attention' is deprecated." in out
    assert "3 command lines: 0 accepted, 3 refused, 0 not asked" in out


def test_what_could_not_be_asked_is_said_and_ends_with_3(
    cli, asked: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = asked("{exit-code: 7}")
    code, out, _ = cli("doctor", path, "--parsers")
    assert code == 3
    assert "not asked (3 lines)" in out
    assert "exit code 7" in out
    monkeypatch.delenv("STAND_IN_GPU")
    code, out, _ = cli("doctor", asked("{}"), "--parsers")
    assert code == 0
    assert "not asked for config (3 lines): SGLang finds no GPU here" in out


def test_a_cluster_s_node_is_asked_through_srun(cli, asked: Callable[[str], Path], tmp_path: Path) -> None:
    """The stand-in for srun drops its own options, and runs the rest."""
    path = asked("{no-such: 1}")
    for name in ("sbatch", "squeue", "scontrol", "scancel", "sinfo"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n", "utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    told = f'#!/bin/sh\necho "$@" > {tmp_path}/told\n'
    runs = 'while case "$1" in --*) true;; *) false;; esac; do shift; done\nexec "$@"\n'
    (tmp_path / "bin" / "srun").write_text(told + runs, "utf-8")
    (tmp_path / "bin" / "srun").chmod(0o755)
    (tmp_path / "here.yaml").write_text("partition: quick\ntime_limit: 4:00:00\n", "utf-8")
    code, out, _ = cli("doctor", path, "--parsers", "--cluster", tmp_path / "here.yaml")
    assert code == 1, out
    assert "unknown option (parser, 3 lines): unrecognized arguments: --no-such" in out
    assert "--nodes=1 --ntasks=1" in (tmp_path / "told").read_text("utf-8")


def test_what_parsers_need_is_said(cli, asked: Callable[[str], Path]) -> None:
    code, _, err = cli("doctor", "--parsers")
    assert code == 2
    assert "give its file too" in err
    code, _, err = cli("doctor", asked("{}"), "--cluster", "somewhere")
    assert code == 2
    assert "--cluster is for --parsers" in err


def test_the_embedded_engine_has_nothing_to_ask(cli, sweeps: Path) -> None:
    code, out, _ = cli("doctor", sweeps / "demo.yaml", "--parsers")
    assert code == 0
    assert "there is no engine to ask" in out
