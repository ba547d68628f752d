"""One worker process of our client that drains a stopped load: what workers.py starts one or two of.

    python benchmarks/client/drain.py --url URL --concurrency N --osl N --isl N --event-bytes N
        --worker I --of N

Its reads take one event each: a socket that holds a whole answer would otherwise give it in one read, and a
read is much of what an event costs. Prints one JSON line: when its last request had ended (CLOCK_MONOTONIC),
the CPU that it had used by then, its events and its reads.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from pathlib import Path

from mtpbench.load import transport_epoll
from mtpbench.load.client_spec import ClientSpec
from mtpbench.load.worker import LoadWorker
from mtpbench.records import Measurement, Workload

START_DELAY_NS = 100_000_000


class Channel:
    """Starts the worker by itself, and notes when it last spoke: at its end, before it writes files."""

    stop_descriptor: int | None = None
    ended_ns = 0
    cpu_s = 0.0

    def await_start(self) -> int:
        """See `mtpbench.load.worker.ControlChannel`."""
        gc.collect()
        gc.freeze()
        gc.disable()
        return time.perf_counter_ns() + START_DELAY_NS

    def report(self, counts: dict[str, int]) -> None:
        """See `mtpbench.load.worker.ControlChannel`."""
        del counts
        self.ended_ns, self.cpu_s = time.monotonic_ns(), time.process_time()


def main() -> None:
    """Read the words, drain, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    for name in ("concurrency", "osl", "isl", "worker", "of", "event-bytes"):
        parser.add_argument(f"--{name}", type=int, required=True)
    words = parser.parse_args()
    spec = ClientSpec(
        base_url=words.url,
        model_name="mock",
        workload=Workload(isl=words.isl, osl=words.osl),
        rules=Measurement(warmup_per_slot=0.0, requests_per_slot=1.0, min_requests=1, continuous_usage=False),
        concurrency=words.concurrency,
    )
    transport_epoll.READ_BYTES = words.event_bytes
    channel = Channel()
    with tempfile.TemporaryDirectory() as folder:
        worker = LoadWorker(spec, Path(folder), words.worker, words.of, channel)
        worker.run()
    print(
        json.dumps(
            {
                "ended_ns": channel.ended_ns,
                "cpu_s": channel.cpu_s,
                "events": worker.scheduler.ended_tokens,
                "reads": worker.monitor.reads,
                "failed": worker.scheduler.failed,
            }
        )
    )


if __name__ == "__main__":
    main()
