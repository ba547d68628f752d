"""The slots of a closed loop start out of step, over every transport, in every arm, and on both clocks."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from answers import answering
from drives import run
from loads import TRANSPORTS, job_for
from scripted import Server

from measured import OFF, make_point
from mtpbench.load.client_spec import ClientSpec
from mtpbench.records import (
    AcceptancePolicy,
    Arm,
    Engine,
    Load,
    Measurement,
    Simulation,
    Speculation,
    Topology,
    WorkerGroup,
    Workload,
)
from mtpbench.run import run_virtual_point

RULES = Measurement(rule="2026-11", request_timeout_s=5.0, point_timeout_s=20.0)
WORKLOAD = Workload(isl=8, osl=400)
SHARES = [50, 150, 250, 350]


def spec(**changes):
    return dataclasses.replace(
        ClientSpec(
            base_url="http://127.0.0.1:1",
            model_name="m",
            workload=WORKLOAD,
            rules=dataclasses.replace(RULES, requests_per_slot=3.0),
            concurrency=4,
            seed=1,
        ),
        **changes,
    )


def outputs(made):
    return made.prepare()[0].lengths.output_tokens.tolist()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.usefixtures("nothing_is_left")
def test_the_first_request_of_each_slot_is_shortened_on_the_wire(transport, workers):
    with Server(answering()) as server:
        job = job_for(
            server.port,
            transport=transport,
            concurrency=4,
            warmup=8,
            measured=12,
            rules=RULES,
            workload=WORKLOAD,
        )
        result = run(job, workers=workers)
        asked = [json.loads(request.body)["max_tokens"] for request in server.requests]
    table = result.table
    firsts = [int(np.flatnonzero(table.slot == slot)[0]) for slot in range(4)]
    assert firsts == [0, 1, 2, 3]
    assert sorted(table.asked_output_tokens[:4].tolist()) == SHARES
    assert (table.asked_output_tokens[4:] == 400).all()
    assert table.warmup[:8].all()
    assert sorted(asked) == sorted(table.asked_output_tokens.tolist())


class Kept:
    """A store that keeps what it is given."""

    def write(self, point, result, provenance, raw, logs):
        self.requests = raw.requests


def test_both_clocks_and_both_arms_shorten_the_same_requests():
    asked = []
    for drafts in (0, 3):
        point = make_virtual_point(drafts)
        run_virtual_point(point, "start", kept := Kept())
        asked.append(kept.requests.asked_output_tokens.tolist())
    live = ClientSpec.of(point, "http://127.0.0.1:1", "m", 1.0, True)
    assert asked[0] == asked[1] == outputs(live)
    assert sorted(asked[0][:4]) == SHARES
    assert outputs(spec(seed=2))[:4] != outputs(spec())[:4]


def make_virtual_point(drafts):
    topology = Topology(groups=(WorkerGroup(role="aggregated", workers=1, tp=8),))
    policy = AcceptancePolicy(mode="golden", length=2.49, rates=(0.79, 0.48, 0.22))
    return make_point(
        engine=Engine(name="simulated"),
        hardware="gb200-nvl72",
        arm=Arm(name="mtp", speculation=Speculation(draft_tokens=3, acceptance=policy)) if drafts else OFF,
        topology=topology,
        concurrency=4,
        workload=WORKLOAD,
        measurement=dataclasses.replace(RULES, requests_per_slot=3.0),
        simulation=Simulation(profile="dsv4-gb200", clock="virtual"),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"rules": dataclasses.replace(RULES, warmup_per_slot=1.0, requests_per_slot=3.0)},
        {"rules": dataclasses.replace(RULES, rule="2026-05", requests_per_slot=3.0)},
        {"load": Load(pacing="poisson", rate_rps=2.0)},
    ],
)
def test_nothing_is_shortened_where_it_would_do_harm_or_has_no_sense(changes):
    """With one warm-up a slot rates come out too high; an open loop has no slots to bring out of step."""
    assert set(outputs(spec(**changes))) == {400}


def test_a_dataset_s_first_turns_are_shortened_and_what_is_measured_is_not(tmp_path):
    path = tmp_path / "sessions.jsonl"
    lines = [
        {"input_length": 8, "output_length": 100 * (1 + turn), "session_id": session}
        for session in range(6)
        for turn in range(4)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    workload = Workload(isl=8, osl=400, prompts="dataset", dataset_path=str(path))
    made = spec(workload=workload, rules=dataclasses.replace(RULES, requests_per_slot=4.0))
    prompts, schedule = made.prepare()
    firsts = schedule.first_of_slots.tolist()
    # Heads are the first turns of sessions; the third and fourth are measured.
    assert firsts == [0, 4]
    assert sorted(prompts.lengths.output_tokens[firsts].tolist()) == [25, 75]
    whole = np.array([100, 200, 300, 400] * 6)
    kept = np.delete(prompts.lengths.output_tokens, firsts)
    assert np.array_equal(kept, np.delete(whole, firsts))
    assert json.loads(prompts.body(0))["max_tokens"] == prompts.lengths.output_tokens[0]
