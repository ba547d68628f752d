"""Dynamo's real frontend and workers that we did not write: started, found, scraped, missed and ended."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from dynamo_runs import Run, codes, servers_under
from prometheus_client.parser import text_string_to_metric_families

from mtpbench import hardware
from mtpbench.deployment import LiveDeployment
from mtpbench.engines import mocker
from mtpbench.executors.local import LocalExecutor
from mtpbench.sweep import Sweep

pytestmark = pytest.mark.dynamo

SERVED = "dynamo_component_requests_total"
WORKERS = ("prefill-0", "decode-0", "decode-1")


@pytest.mark.parametrize("arm", ["off", "mtp3"])
def test_every_request_succeeds_and_its_tokens_come_from_usage(aggregated: Run, arm: str) -> None:
    result, requests = aggregated.results()[arm, 2], aggregated.raw(arm, 2).requests
    assert result.failed_requests == 0
    assert len(requests) == 2 + 8
    assert requests.ok.all()
    assert (requests.output_tokens == 48).all()
    assert (requests.prompt_tokens == 64).all()


def test_without_mtp_the_point_is_valid(aggregated: Run) -> None:
    off = aggregated.results()["off", 2]
    assert codes(off) == set()
    assert off.acceptance.reason == "speculation_off"


def test_mtp_is_faster_and_its_acceptance_is_unknown_with_a_reason(aggregated: Run) -> None:
    off, mtp = aggregated.results()["off", 2], aggregated.results()["mtp3", 2]
    assert off.tpot_s is not None
    assert mtp.tpot_s is not None
    # 1 + 0.8 + 0.48 + 0.192 = 2.47 tokens a step; two arms without MTP differ by a few percent.
    assert off.tpot_s.p50 > 1.5 * mtp.tpot_s.p50
    assert (mtp.acceptance.length, mtp.acceptance.reason) == (None, "no_counters")
    assert codes(mtp) == {"mtp_no_counters"}


def test_prefill_and_decode_workers_serve_behind_the_frontend(split: Run) -> None:
    result, raw = split.results()["mtp3", 4], split.raw("mtp3", 4)
    assert codes(result) == {"mtp_no_counters"}
    assert len(raw.requests) == 4 + 16
    assert (raw.requests.output_tokens == 48).all()
    assert {sample.process for sample in raw.counters} == set(WORKERS)


async def test_a_ready_frontend_lists_the_model_and_each_worker_counts_its_own_requests(
    sweep: Sweep, tmp_path: Path
) -> None:
    point = next(p for p in sweep.points if p.topology.disaggregated)
    deployment = mocker.deploy(point, hardware.lookup(point.hardware))
    body = {"model": "mocked", "prompt": "abc", "max_tokens": 4, "ignore_eos": True}
    async with (
        LiveDeployment(deployment, LocalExecutor(tmp_path), 120) as live,
        aiohttp.ClientSession(trust_env=False) as session,
    ):
        async with session.get(f"{live.base_url}/v1/models") as answer:
            assert [model["id"] for model in (await answer.json())["data"]] == ["mocked"]
        assert set(live.metrics_urls) == set(WORKERS)
        before = {name: await served(session, url) for name, url in live.metrics_urls.items()}
        for _ in range(6):
            async with session.post(f"{live.base_url}/v1/completions", json=body) as answer:
                assert answer.status == 200, await answer.text()
                assert (await answer.json())["usage"]["completion_tokens"] == 4
        after = {name: await served(session, url) for name, url in live.metrics_urls.items()}
    moved = {name: after[name] - before[name] for name in WORKERS}
    assert moved["prefill-0"] == 6
    assert moved["decode-0"] + moved["decode-1"] == 6
    assert min(moved.values()) > 0
    assert servers_under(tmp_path) == {}


async def served(session: aiohttp.ClientSession, url: str) -> float:
    """Requests that one worker has counted on its own metrics."""
    async with session.get(url) as answer:
        families = text_string_to_metric_families(await answer.text())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == SERVED and sample.labels["dynamo_endpoint"] == "generate"
        )


def test_a_worker_lost_behind_a_healthy_frontend_costs_one_point(killed: Run) -> None:
    results = killed.results()
    first, second, third = (results["off", concurrency] for concurrency in (2, 4, 6))
    assert len(killed.watcher.victim) == 1
    assert codes(first) == set()
    (died,) = [reason for reason in second.reasons if reason.code == "server_died"]
    assert died.detail.startswith("decode-1 ended with killed by SIGKILL")
    # Open streams break off; what is sent later is, in some runs, still given to the lost worker.
    assert {"stream_error", "http_500"} & set(second.errors)
    # The rest ran on the deployment that was started again.
    assert codes(third) == set()
    assert third.failed_requests == 0


def test_nothing_listens_on_another_interface_than_loopback(aggregated: Run, split: Run) -> None:
    assert aggregated.exposed() | split.exposed() == set()


def test_nothing_that_was_started_is_left(aggregated: Run, split: Run, killed: Run) -> None:
    for run in (aggregated, split, killed):
        assert servers_under(run.directory) == {}
