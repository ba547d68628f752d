"""Servers of known truth over real HTTP: those that change are flagged, or what is measured is right.

A minute of a real server takes half a second here. What the truth is, the server notes itself, so that a busy
machine makes no test fail.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import threading
import time

import numpy as np
import pytest
from answers import CHUNKED, DONE, LAST_CHUNK, chunk, event, text, usage
from drives import run
from loads import job_for
from scripted import Server

from measured import MTP, OFF, counter_samples, make_point
from mtpbench.measure import measure
from mtpbench.records import Measurement, RunFacts, Workload
from mtpbench.store import RawPoint

pytestmark = pytest.mark.usefixtures("nothing_is_left")
STEP_S, SLOTS, OUTPUT = 0.005, 4, 24
RULES = Measurement(rule="2026-11", min_window_s=0.1, request_timeout_s=5.0, point_timeout_s=30.0)


class Known:
    """A server that makes a step every 5 ms, by so many times slower and with so many tokens.

    Args:
        slower: how many times longer a step takes, by seconds since the first request.
        tokens: what a step brings, by the same.
    """

    def __init__(self, slower=lambda t: 1.0, tokens=lambda t: 1):
        self._slower, self._tokens = slower, tokens
        self._began = None
        self._lock = threading.Lock()
        self.answered = []
        """When each answer ended, its seconds per token after the first event, and those since the answer
        before it on its connection had ended: a client that is late asks later.
        """

    def __call__(self, peer):
        since_s = None
        while request := peer.read():
            with self._lock:
                self._began = self._began or time.monotonic()
            since_s = self._answer(peer, json.loads(request.body)["max_tokens"], since_s or self._now())

    def _now(self):
        return time.monotonic() - self._began

    def _answer(self, peer, asked, since_s):
        peer.send(CHUNKED)
        due, made, first = time.monotonic(), 0, None
        while made < asked:
            due += STEP_S * self._slower(self._now())
            time.sleep(max(0.0, due - time.monotonic()))
            made = min(asked, made + self._tokens(self._now()))
            first = first or (self._now(), made)
            finish = "length" if made == asked else None
            peer.send(chunk(event(text("x", finish, usage=usage(made, 8)))))
        ended_s = self._now()
        if made > first[1]:
            self.answered.append((ended_s, (ended_s - first[0]) / (made - first[1]), ended_s - since_s))
        peer.send(chunk(DONE) + LAST_CHUNK)
        return ended_s

    def speeds_tps(self, after=2 / 3):
        """What one user and all get of the answers that ended after this share of the run."""
        ended, tpot, took = map(np.array, zip(*self.answered, strict=True))
        late = ended > ended.max() * after
        return 1 / float(np.median(tpot[late])), SLOTS * OUTPUT / float(np.median(took[late]))


def judge(known, rounds=12, rule="2026-11", arm=OFF):
    rules = dataclasses.replace(RULES, rule=rule)
    with Server(known) as server:
        job = job_for(
            server.port,
            concurrency=SLOTS,
            warmup=2 * SLOTS,
            measured=rounds * SLOTS,
            rules=rules,
            workload=Workload(isl=8, osl=OUTPUT),
        )
        done = run(job)
    assert done.table.ok.all()
    point = make_point(arm=arm, concurrency=SLOTS, measurement=rules)
    facts = RunFacts(counter_processes=("worker",))
    counters = tuple(counter_samples()) if arm is MTP else ()
    return measure(point, RawPoint(requests=done.table, counters=counters, facts=facts, client=done.client))


def is_flagged(result):
    return "not_settled" in [reason.code for reason in result.reasons]


def judge_new(make, **options):
    """Asks a server anew where a busy machine kept the client from measuring it, at most twice."""
    for _ in range(3):
        known = make()
        result = judge(known, **options)
        if "client_saturated" not in [reason.code for reason in result.reasons]:
            break
    return known, result


def is_right(result, known, after=2 / 3):
    """Within 6% for a user, and within 10% of all output."""
    one, whole = known.speeds_tps(after)
    return result.interactivity_tps == pytest.approx(one, rel=0.06) and (
        result.steady.output_tps == pytest.approx(whole, rel=0.1)
    )


def test_a_settled_server_is_measured_as_fast_as_it_is():
    known = Known()
    result = judge(known)
    assert is_right(result, known, after=0.2)
    assert result.settling is not None


@pytest.mark.parametrize(
    "slower",
    [
        pytest.param(lambda t: 1 + 1.5 * math.exp(-t / 0.6), id="warms up"),
        pytest.param(lambda t: 2.0 if t < 1.2 else 1.0, id="half speed, then full"),
        pytest.param(lambda t: 1 + 0.8 * t, id="drifts"),
    ],
)
def test_a_server_whose_speed_changes_is_flagged_or_right(slower):
    known, result = judge_new(lambda: Known(slower))
    assert is_flagged(result) or is_right(result, known)


def loses_acceptance():
    turns = itertools.count()
    known = Known(tokens=lambda t: 2 + next(turns) % 2 if len(known.answered) < 50 else 1)
    return known


def test_a_server_that_loses_its_acceptance_midway_is_flagged_or_right():
    known, result = judge_new(loses_acceptance, rounds=16, arm=MTP)
    assert is_flagged(result) or is_right(result, known)
