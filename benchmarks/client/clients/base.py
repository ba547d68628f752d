"""What a client is to the runner: how it is set up, what is run, and how its report is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from scenarios import Scenario

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a client says of a run; None is what it does not say.

    `duration_s` is from its first request to its last token, `ended_ns` when that was (CLOCK_MONOTONIC), and
    `schedule_start_ns` when request 0 of an open loop was due.
    """

    completed: int
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    duration_s: float | None = None
    ended_ns: int | None = None
    schedule_start_ns: int | None = None
    stamp_error_p99_us: float | None = None
    reader_lag_p99_ms: float | None = None
    events_per_read: float | None = None
    connected_beforehand: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """A load client.

    `prepare` returns its interpreter, set up now if need be; `version` names it; `command` puts a load on a
    URL, with a folder to write to; `read` reads its report from that folder and what it printed.
    By default all but fast clients run once, middling ones no heavy scenario, slow ones very few.
    """

    name: str
    label: str
    prepare: Callable[[], Path]
    version: Callable[[Path], str]
    command: Callable[[Path, str, Scenario, Path], Sequence[str]]
    read: Callable[[Path, str], Report]
    environment: Mapping[str, str] = field(default_factory=lambda: OFFLINE)
    speed: Literal["fast", "middling", "slow"] = "fast"


def read_json_line(folder: Path, printed: str) -> Report:
    """The report of our own programs: one JSON line, the last that was printed."""
    said: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return Report(
        completed=said["completed"],
        ttft_ms=said["ttft_mean_ms"],
        tpot_ms=said["tpot_mean_ms"],
        ended_ns=said.get("ended_ns"),
        schedule_start_ns=said.get("schedule_start_ns"),
        stamp_error_p99_us=(said.get("stamp_error_us") or {}).get("p99"),
        reader_lag_p99_ms=(said.get("reader_lag_ms") or {}).get("p99"),
        events_per_read=said.get("events_per_read"),
        connected_beforehand=said.get("connected_beforehand", False),
    )
