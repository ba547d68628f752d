"""Loads for tests: jobs, and one client process's part of them run in a thread of the test's own process."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripted import Script, Server

from mtpbench.load.client_spec import ClientSpec
from mtpbench.load.pacer import Schedule
from mtpbench.load.request_log import read_table
from mtpbench.load.worker import LoadWorker
from mtpbench.metrics.request_table import RequestTable
from mtpbench.records import Load, Measurement, Workload, from_json, to_json
from mtpbench.workload import Prompts

RULES = Measurement(request_timeout_s=5.0, point_timeout_s=20.0)
SHORT_RULES = Measurement(request_timeout_s=2.0, point_timeout_s=20.0)
TRANSPORTS = ("fast", "aiohttp")
MOST_S = 15.0
"""No share of a test takes longer than this, unless it hangs."""


def job_for(
    port: int,
    *,
    transport: str = "fast",
    concurrency: int = 2,
    warmup: int = 2,
    measured: int = 6,
    rules: Measurement = RULES,
    workload: Workload | None = None,
    load: Load | None = None,
    host: str = "127.0.0.1",
    **more: Any,
) -> ClientSpec:
    """A spec of so many requests against a port of this machine."""
    rules = dataclasses.replace(
        rules,
        warmup_per_slot=warmup / concurrency,
        requests_per_slot=measured / concurrency,
        min_requests=1,
    )
    load = dataclasses.replace(load or Load(), transport=transport)  # type: ignore[arg-type]
    return PreparedJob(
        base_url=f"http://{host}:{port}",
        model_name="tiny",
        workload=workload or Workload(isl=8, osl=4),
        load=load,
        rules=rules,
        seed=1,
        concurrency=concurrency,
        **more,
    )


class PreparedJob(ClientSpec):
    """A spec whose requests are made once for all that differ in their server only: half a test's time."""

    __slots__ = ()

    def prepare(self) -> tuple[Prompts, Schedule]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(ClientSpec)}
        load = dataclasses.replace(self.load, transport="auto")
        return _prepare(json.dumps(to_json(ClientSpec(**{**fields, "base_url": "", "load": load}))))


@functools.lru_cache(maxsize=32)
def _prepare(spec: str) -> tuple[Prompts, Schedule]:
    return from_json(ClientSpec, json.loads(spec)).prepare()


class Channel:
    """A control channel that starts the load at once and can stop it."""

    def __init__(self) -> None:
        self.stop_descriptor, self._stop = os.pipe()
        self.reports: list[dict[str, int]] = []
        self.prepared = threading.Event()

    def await_start(self) -> int | None:
        self.prepared.set()
        return time.perf_counter_ns()

    def report(self, counts: dict[str, int]) -> None:
        self.reports.append(counts)

    def stop(self) -> None:
        os.write(self._stop, b"stop\n")

    def close(self) -> None:
        os.close(self.stop_descriptor)
        os.close(self._stop)


class Outcome:
    """What a share left behind."""

    def __init__(self, worker: LoadWorker, table: RequestTable, channel: Channel) -> None:
        self.worker, self.table, self.reports = worker, table, channel.reports
        self.requests = list(table.records())
        self.scheduler, self.monitor = worker.scheduler, worker.monitor

    @property
    def errors(self) -> list[str | None]:
        return [record.error for record in self.requests]

    @property
    def fields(self) -> list[tuple[Any, ...]]:
        """What two transports must agree on, for each request."""
        return [
            (r.error, r.finish_reason, r.prompt_tokens, r.output_tokens, len(r.chunk_times_s), r.chunk_tokens)
            for r in self.requests
        ]


def run_share(
    spec: ClientSpec,
    *,
    meanwhile: Callable[[Channel], None] | None = None,
    number: int = 0,
    of: int = 1,
    folder: Path | None = None,
) -> Outcome:
    """Run one share of a spec to its end, in a thread; `meanwhile` runs beside it and may stop it.

    What the share writes lies in `folder` afterwards, where one is given.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as new:
            return run_share(spec, meanwhile=meanwhile, number=number, of=of, folder=Path(new))
    channel = Channel()
    worker = LoadWorker(spec, folder, number, of, channel)
    faults: list[BaseException] = []

    def go() -> None:
        try:
            worker.run()
        except BaseException as fault:  # noqa: BLE001
            faults.append(fault)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    if meanwhile is not None:
        channel.prepared.wait(10)
        meanwhile(channel)
    thread.join(MOST_S)
    assert not thread.is_alive(), "the load did not end"
    channel.close()
    if faults:
        raise faults[0]
    prompts, schedule = spec.prepare()
    return Outcome(worker, read_table(folder, schedule, of, [], prompts.lengths), channel)


def serve(script: Script, **options: Any) -> tuple[Outcome, Server]:
    """Run a share against a scripted server; see `job_for` for the options."""
    with Server(script) as server:
        return run_share(job_for(server.port, **options)), server


def serve_both(script: Script, **options: Any) -> tuple[list[tuple[Any, ...]], dict[str, Outcome]]:
    """Run the same share through both transports, which must agree; their `fields`, and each outcome.

    One request by default.
    """
    options = {"concurrency": 1, "warmup": 0, "measured": 1, "rules": SHORT_RULES, **options}
    found = {transport: serve(script, transport=transport, **options)[0] for transport in TRANSPORTS}
    told = {name: (outcome.fields, details({name: outcome})) for name, outcome in found.items()}
    assert told["fast"][0] == told["aiohttp"][0], told
    return found["fast"].fields, found


def details(outcomes: dict[str, Outcome]) -> list[str | None]:
    """Every request's error detail, of all transports."""
    return [record.error_detail for outcome in outcomes.values() for record in outcome.requests]


def nothing(code: str) -> tuple[Any, ...]:
    """The `fields` of a request that got no chunk."""
    return (code, None, None, None, 0, ())
