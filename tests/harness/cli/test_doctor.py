"""What `mtpbench doctor` says, and what the plan makes of a measured ceiling."""

from __future__ import annotations

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
