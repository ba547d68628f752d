"""The plain types that several records share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

SCHEMA_VERSION = 2
"""Written into every stored record; the history stands in the package's docstring."""

Json = Any
Role = Literal["router", "prefill", "decode", "aggregated", "sampler", "client"]
WorkerRole = Literal["prefill", "decode", "aggregated"]
Clock = Literal["real", "scaled", "virtual"]
Flags = Mapping[str, Json]
"""Engine options without dashes: True is a bare flag, False or None leaves it out, a mapping is JSON."""
