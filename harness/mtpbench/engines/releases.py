"""Pure: the releases that mtpbench knows, and the day (ISO 8601) on which each came out on the package index.

An image's day tells its release; the newest one is assumed where a sweep names none. A new release is a line
here, and what it calls otherwise a line in its engine's module: `make test-parsers` finds out.
"""

from __future__ import annotations

from collections.abc import Mapping

VLLM: Mapping[str, str] = {
    "0.15.1": "2026-02-05",
    "0.16.0": "2026-02-26",
    "0.17.0": "2026-03-07",
    "0.17.1": "2026-03-11",
    "0.18.0": "2026-03-20",
    "0.18.1": "2026-03-31",
    "0.19.0": "2026-04-03",
    "0.19.1": "2026-04-18",
    "0.20.0": "2026-04-27",
    "0.20.1": "2026-05-03",
    "0.20.2": "2026-05-10",
    "0.21.0": "2026-05-15",
    "0.22.0": "2026-05-29",
    "0.22.1": "2026-06-05",
    "0.23.0": "2026-06-15",
    "0.24.0": "2026-06-30",
    "0.25.0": "2026-07-11",
    "0.25.1": "2026-07-14",
    "0.26.0": "2026-07-25",
    "0.27.0": "2026-08-10",
    "0.27.1": "2026-08-11",
    "0.28.0": "2026-08-26",
    "0.29.0": "2026-09-09",
    "0.30.0": "2026-09-22",
    "0.31.0": "2026-10-05",
    "0.32.0": "2026-10-18",
    "0.33.0": "2026-11-02",
}
SGLANG: Mapping[str, str] = {
    "0.5.9": "2026-02-23",
    "0.5.10": "2026-04-05",
    "0.5.10.post1": "2026-04-08",
    "0.5.11": "2026-05-07",
    "0.5.12": "2026-05-16",
    "0.5.12.post1": "2026-05-23",
    "0.5.13": "2026-06-11",
    "0.5.13.post1": "2026-06-15",
    "0.5.14": "2026-06-26",
    "0.5.15": "2026-07-10",
    "0.5.15.post1": "2026-07-14",
    "0.5.16": "2026-07-25",
    "0.5.17": "2026-08-08",
    "0.5.18": "2026-08-21",
    "0.5.19": "2026-09-04",
    "0.5.20": "2026-09-18",
    "0.5.21": "2026-10-01",
    "0.5.22": "2026-10-16",
    "0.5.23": "2026-10-30",
}
PINS: Mapping[str, Mapping[str, str]] = {
    "1.0.2": {"vllm": "0.16.0", "sglang": "0.5.9", "tensorrt-llm": "1.3.0rc5.post1"},
    "1.1.1": {"vllm": "0.19.0", "sglang": "0.5.10.post1", "tensorrt-llm": "1.3.0rc11"},
    "1.2.1": {"vllm": "0.20.1", "sglang": "0.5.11", "tensorrt-llm": "1.3.0rc14"},
    "1.3.1": {"vllm": "0.23.0", "sglang": "0.5.14", "tensorrt-llm": "1.3.0rc19"},
    "1.4.2": {"vllm": "0.26.0", "sglang": "0.5.16", "tensorrt-llm": "1.3.0rc22"},
    "1.5.1": {"vllm": "0.28.0", "sglang": "0.5.18", "tensorrt-llm": "1.3.0rc25"},
    "1.6.0": {"vllm": "0.31.0", "sglang": "0.5.21", "tensorrt-llm": "1.3.0rc29"},
    "1.6.1": {"vllm": "0.31.0", "sglang": "0.5.21", "tensorrt-llm": "1.3.0rc29"},
}
"""The engine releases that each release of Dynamo is made for, by their distributions."""
