from __future__ import annotations

import pytest

from mtpbench import hardware
from mtpbench.errors import InputError


def test_the_newest_constants_are_the_default_and_older_ones_can_be_asked_for() -> None:
    assert hardware.lookup("gb200-nvl72").power_kw_per_gpu == 1.87
    older = hardware.lookup("gb200-nvl72", "2026-05")
    assert (older.power_kw_per_gpu, older.usd_per_gpu_h["hyperscaler"]) == (2.10, 2.21)


def test_unknown_names_and_dates_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown hardware 'gb100'; known: gb200-nvl72"):
        hardware.lookup("gb100")
    with pytest.raises(InputError, match="known dates: 2026-05, 2026-07"):
        hardware.lookup("h100", "2020-01")


def test_a_cpu_has_no_price_and_no_power_and_says_why() -> None:
    cpu = hardware.lookup("cpu")
    assert cpu.power_kw_per_gpu is None
    assert cpu.usd_per_gpu_h == {}
    assert "neither a published price nor a provisioned power" in cpu.source
