"""Dynamo's mocker as processes; `make test-dynamo` runs them."""

from __future__ import annotations

import pytest

from mtpbench import hardware
from mtpbench.engines import engine_of, mocker
from mtpbench.errors import InputError, UnsupportedError
from mtpbench.records import Deployment, EngineLimits, Point, Process
from mtpbench.sweep import load_sweep

RACK = hardware.lookup("gb200-nvl72")
MOCKER = (
    "  name: simulated\n  clock: scaled\n  speed: 5\n  flags: {all: {stream-interval: 4}}\n",
    "  name: mocker\n  router: dynamo\n  flags: {all: {max-num-seqs: 64}}\n",
)
SPLIT = ("aggregated: 1xTP4, concurrency: [1, 2]", "prefill: 1xTP4, decode: 2xDEP4, concurrency: [2]")
RATES = ("acceptance: golden", "acceptance: {rates: [0.8, 0.48, 0.192]}")
COMMAND = ("router: dynamo", 'router: dynamo\n  command: [numactl, "@{env:PY}", -m, dynamo.mocker]')


def deployments(path) -> tuple[dict[str, Point], dict[str, Deployment]]:  # type: ignore[no-untyped-def]
    """The sweep's first point and its deployment by arm."""
    points = {point.arm.name: point for point in reversed(load_sweep(path).points)}
    return points, {name: engine_of(point).deploy(point, RACK) for name, point in points.items()}


def options(process: Process) -> dict[str, str]:
    words = process.argv[process.argv.index("dynamo.mocker") + 1 :]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_an_aggregated_worker_stands_behind_the_frontend(write_sweep) -> None:  # type: ignore[no-untyped-def]
    _, made = deployments(write_sweep(MOCKER))
    front, worker = made["off"].processes
    assert (made["off"].front, front.name, front.role) == ("router", "router", "router")
    assert front.argv == ("python3", "-m", "dynamo.frontend", "--http-port", "@{port:router/http}")
    assert front.ready is not None
    assert front.ready.model == "m"
    assert front.metrics is None
    assert worker.argv[:3] == ("python3", "-m", "dynamo.mocker")
    assert options(worker) == {
        "--model-path": "some/model",
        "--model-name": "m",
        "--ais-mtp-seed": "0",
        "--max-num-seqs": "64",
    }
    assert (worker.gpus, made["off"].gpus, made["off"].nodes) == ((), 4, 1)


def test_workers_find_the_frontend_by_files_and_answer_on_ports_of_their_own(write_sweep) -> None:  # type: ignore[no-untyped-def]
    _, made = deployments(write_sweep(MOCKER, SPLIT))
    front, *workers = made["off"].processes
    assert [worker.name for worker in workers] == ["prefill-0", "decode-0", "decode-1"]
    for worker in workers:
        assert {**worker.env, **front.env} == {**worker.env, "DYN_HTTP_HOST": "@{host:router}"}
        assert worker.env["DYN_DISCOVERY_BACKEND"] == "file"
        assert worker.env["DYN_SYSTEM_PORT"] == f"@{{port:{worker.name}/http}}"
        assert worker.metrics == ("http", "/metrics")
        assert worker.ready is not None
        assert options(worker)["--disaggregation-mode"] == worker.role
    assert "--data-parallel-size" not in options(workers[0])
    assert options(workers[1])["--data-parallel-size"] == "4"
    assert made["off"].nodes == 1
    assert {worker.node for worker in workers} == {0}


def test_the_frontend_runs_on_the_python_that_runs_the_workers(write_sweep) -> None:  # type: ignore[no-untyped-def]
    _, made = deployments(write_sweep(MOCKER, COMMAND))
    front, worker = made["off"].processes
    assert front.argv[:4] == ("numactl", "@{env:PY}", "-m", "dynamo.frontend")
    assert worker.argv[:4] == ("numactl", "@{env:PY}", "-m", "dynamo.mocker")


def test_off_and_mtp_differ_in_drafts_on_workers_that_decode_and_in_nothing_else(write_sweep) -> None:  # type: ignore[no-untyped-def]
    _, made = deployments(write_sweep(MOCKER, SPLIT, RATES))
    pairs = list(zip(made["off"].processes, made["mtp"].processes, strict=True))
    assert [mine == theirs for mine, theirs in pairs] == [True, True, False, False]
    for off, mtp in pairs[2:]:
        added = {name: value for name, value in options(mtp).items() if name not in options(off)}
        assert added == {"--ais-nextn": "3", "--ais-nextn-accept-rates": "0.8,0.6,0.4"}
        assert {**options(off), **added} == options(mtp)
        assert off.env == mtp.env


@pytest.mark.parametrize(
    ("named", "prefix"),
    [
        ("", "ais"),
        ("  version: ai-dynamo 1.4.2\n", "aic"),
        ("  version: 1.5.1\n", "aic"),
        ("  version: ai-dynamo 1.6.0\n", "ais"),
        ('  router_version: "1.4.2"\n', "aic"),
        ("  image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.5.1\n", "aic"),
    ],
)
def test_options_have_the_names_of_the_release_that_the_sweep_names(
    write_sweep,  # type: ignore[no-untyped-def]
    named: str,
    prefix: str,
) -> None:
    _, made = deployments(write_sweep(MOCKER, ("  router: dynamo\n", f"  router: dynamo\n{named}"), RATES))
    words = options(made["mtp"].processes[1])
    assert [name for name in words if name.startswith("--ai")] == [
        f"--{prefix}-mtp-seed",
        f"--{prefix}-nextn",
        f"--{prefix}-nextn-accept-rates",
    ]


def test_an_option_of_the_sweep_takes_the_place_of_ours_under_either_name(write_sweep) -> None:  # type: ignore[no-untyped-def]
    """The mocker refuses a line that has both names of one option."""
    _, made = deployments(write_sweep(MOCKER, ("max-num-seqs: 64", "aic-mtp-seed: 7")))
    assert options(made["off"].processes[1])["--ais-mtp-seed"] == "7"
    assert "--aic-mtp-seed" not in options(made["off"].processes[1])


@pytest.mark.parametrize(
    ("unconditional", "conditional"),
    [
        ((), ()),
        ((0.79,), (0.79,)),
        ((0.8, 0.48, 0.192), (0.8, 0.6, 0.4)),
        ((1.0, 1.0, 0.5), (1.0, 1.0, 0.5)),
        ((0.5, 0.0, 0.0), (0.5, 0.0, 0.0)),
    ],
)
def test_conditional_rates_multiply_to_the_unconditional_ones(
    unconditional: tuple[float, ...], conditional: tuple[float, ...]
) -> None:
    assert mocker.conditional_rates(unconditional) == pytest.approx(conditional)


def test_where_acceptance_is_measured_the_mocker_takes_rates_of_its_own(write_sweep) -> None:  # type: ignore[no-untyped-def]
    _, made = deployments(write_sweep(MOCKER, ("acceptance: golden", "acceptance: measured")))
    words = options(made["mtp"].processes[1])
    assert words["--ais-nextn"] == "3"
    assert "--ais-nextn-accept-rates" not in words


def test_limits_are_per_data_parallel_rank(write_sweep) -> None:  # type: ignore[no-untyped-def]
    points, _ = deployments(write_sweep(MOCKER, SPLIT))
    assert mocker.limits(points["off"]) == {
        "prefill": EngineLimits(max_running=64, prefill_chunk_tokens=8192),
        "decode": EngineLimits(max_running=256, prefill_chunk_tokens=32768),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("  router: dynamo\n", ""), "set `engine.router: dynamo`, not None"),
        (("router: dynamo", "router: sglang"), "set `engine.router: dynamo`, not 'sglang'"),
        (("acceptance: golden", "acceptance: {length: 2.2}"), "by 3 rates .* not by a length"),
        (("draft_tokens: 3, acceptance: golden", "draft_tokens: 6"), "1 … 5 draft tokens, not 6"),
    ],
)
def test_what_the_mocker_cannot_do_is_refused_before_anything_starts(
    write_sweep,  # type: ignore[no-untyped-def]
    change: tuple[str, str],
    said: str,
) -> None:
    with pytest.raises((InputError, UnsupportedError), match=said):
        load_sweep(write_sweep(MOCKER, change))


def test_results_of_a_mocker_are_simulated_ones(write_sweep) -> None:  # type: ignore[no-untyped-def]
    assert all(point.simulated for point in load_sweep(write_sweep(MOCKER)).points)
