"""From arms that were measured to the depth of drafting by load, in the form that each engine takes."""

from __future__ import annotations

from mtpbench_analysis.schedule.forms import (
    ENGINE_FORMS,
    EngineForm,
    check_engine,
    notes_of,
    to_engine_form,
    to_json,
    write_schedule,
)
from mtpbench_analysis.schedule.measured import Doubt, Rung, Schedule, find_schedule
from mtpbench_analysis.schedule.selection import Run

__all__ = [
    "ENGINE_FORMS",
    "Doubt",
    "EngineForm",
    "Run",
    "Rung",
    "Schedule",
    "check_engine",
    "find_schedule",
    "notes_of",
    "to_engine_form",
    "to_json",
    "write_schedule",
]
