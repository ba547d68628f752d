"""Pure: tables and sentences under a title, for answers that are not a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtpbench_analysis.tables import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """One answer.

    Args:
        title: what it is about; says SIMULATED where it is.
        banner: the SIMULATED line, or None.
        sentences: the answer in words, before the tables.
        tables: in the order in which a reader needs them.
        data: the same for programs, JSON types only.
    """

    title: str
    banner: str | None
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]
    data: dict[str, Any]
