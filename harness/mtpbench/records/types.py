"""The plain types that several records share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

SCHEMA_VERSION = 5
"""Written into every stored record; the history stands in the package's docstring."""
READABLE_VERSIONS = (2, 3, 4, 5)
"""What the store reads; fields that an older version lacked are NULL (`store/migration.py`)."""

Json = Any
Role = Literal["router", "prefill", "decode", "aggregated", "sampler", "client"]
WorkerRole = Literal["prefill", "decode", "aggregated"]
Clock = Literal["real", "scaled", "virtual"]
Flags = Mapping[str, Json]
"""Engine options without dashes: True is a bare flag, False or None leaves it out, a mapping is JSON."""
