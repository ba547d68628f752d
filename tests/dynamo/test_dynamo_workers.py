"""Real workers with MTP behind Dynamo's real frontend: each is started, found, scraped and counted."""

from __future__ import annotations

import pytest
from dynamo_runs import Run, codes, servers_under

from engines.setup.chain import CHAIN
from mtpbench.store import RawPoint

pytestmark = pytest.mark.dynamo

DRAFTS = 3
EXPECTED = float(CHAIN.acceptance_length(DRAFTS))
CHAIN_TEXT = "".join(chr(ord("a") + i) for i in range(CHAIN.length)) * 100
WORKERS = {"vllm": ("aggregated-0",), "sglang": ("aggregated-0", "aggregated-1")}
CONCURRENCY = {"vllm": 2, "sglang": 4}
NODES = ("aggregated-0.r0", "aggregated-0.r1")


def drafts_of(raw: RawPoint, process: str) -> float:
    """Verification steps that a process counted between the first and the last scrape of a point."""
    counts = [s.counters.drafts for s in raw.counters if s.process == process and s.counters is not None]
    assert counts[0] is not None
    assert counts[-1] is not None
    return counts[-1] - counts[0]


@pytest.mark.parametrize("arm", ["off", "mtp3"])
def test_every_request_succeeds_and_the_point_is_valid(workers: Run, engine: str, arm: str) -> None:
    result = workers.results()[arm, CONCURRENCY[engine]]
    requests = workers.raw(arm, CONCURRENCY[engine]).requests
    assert codes(result) == set()
    assert not result.simulated
    assert requests.ok.all()
    assert (requests.output_tokens == 256).all()
    assert (requests.prompt_tokens == 32).all()


def test_the_measured_acceptance_length_is_the_one_in_closed_form(workers: Run, engine: str) -> None:
    acceptance = workers.results()["mtp3", CONCURRENCY[engine]].acceptance
    assert acceptance.length == pytest.approx(EXPECTED, rel=0.02)
    assert workers.results()["off", CONCURRENCY[engine]].acceptance.reason == "speculation_off"


def test_greedy_answers_are_the_same_with_mtp_off_and_on(workers: Run) -> None:
    answers = workers.greedy_answers("off")
    assert workers.greedy_answers("mtp3") == answers
    assert len(answers) > 1
    assert all(text and text in CHAIN_TEXT for text in answers)


def test_the_metrics_of_every_worker_are_scraped(workers: Run, engine: str) -> None:
    """The frontend takes workers in turn, so that each of them has speculated."""
    samples = workers.raw("mtp3", CONCURRENCY[engine]).counters
    assert {sample.process for sample in samples} == set(WORKERS[engine])
    for name in WORKERS[engine]:
        last = [sample for sample in samples if sample.process == name][-1]
        assert last.reason is None
        assert last.counters is not None or last.gauges


def test_both_nodes_of_a_data_parallel_worker_serve_and_are_counted(two_nodes: Run) -> None:
    result, raw = two_nodes.results()["mtp3", 4], two_nodes.raw("mtp3", 4)
    assert codes(result) == set()
    assert raw.requests.ok.all()
    by_node = {name: drafts_of(raw, name) for name in NODES}
    assert {sample.process for sample in raw.counters} == set(NODES)
    assert min(by_node.values()) > 0.4 * sum(by_node.values())
    # Of the head alone there would be half as many; warm-up is scraped too, and not in the window.
    assert result.acceptance.drafts is not None
    assert max(by_node.values()) < result.acceptance.drafts <= sum(by_node.values())
    assert result.acceptance.length == pytest.approx(EXPECTED, rel=0.02)


def test_each_node_of_a_data_parallel_worker_is_awaited(two_nodes: Run) -> None:
    deployment = two_nodes.watcher.deployments["mtp3"]
    nodes = {process.name: process for process in deployment.processes if process.role != "router"}
    assert {name: process.node for name, process in nodes.items()} == {NODES[0]: 0, NODES[1]: 1}
    assert all(process.ready is not None for process in nodes.values())
    assert deployment.nodes == 2


def test_ranks_on_two_nodes_answer_what_the_model_is_sure_of(two_nodes: Run) -> None:
    answers = two_nodes.greedy_answers("mtp3")
    assert len(answers) > 1
    assert all(text and text in CHAIN_TEXT for text in answers)


def test_nothing_listens_on_another_interface_than_loopback(workers: Run) -> None:
    assert workers.exposed() == set()


def test_nor_do_the_ranks_of_two_nodes(two_nodes: Run) -> None:
    assert two_nodes.exposed() == set()


def test_nothing_that_was_started_is_left(workers: Run, two_nodes: Run) -> None:
    for run in (workers, two_nodes):
        assert servers_under(run.directory) == {}
