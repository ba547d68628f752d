from __future__ import annotations

from dataclasses import replace

import pytest

from mtpbench import hardware
from mtpbench.errors import InputError
from mtpbench.records import GpuCondition, PowerSource


def test_the_newest_constants_are_the_default_and_older_ones_can_be_asked_for() -> None:
    assert hardware.lookup("gb200-nvl72").power_kw_per_gpu == 1.87
    older = hardware.lookup("gb200-nvl72", "2026-05")
    assert (older.power_kw_per_gpu, older.usd_per_gpu_h["hyperscaler"]) == (2.10, 2.21)


def test_unknown_names_and_dates_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown hardware 'gb100'; known: gb200-nvl72"):
        hardware.lookup("gb100")
    with pytest.raises(InputError, match="known dates: 2026-05, 2026-07, 2026-09"):
        hardware.lookup("h100", "2020-01")


RENTALS = {
    "gb200-nvl72": 4.00,
    "gb300-nvl72": 5.00,
    "b200": 3.70,
    "b300": 4.25,
    "h200": 2.90,
    "h100": 2.00,
    "mi300x": 1.30,
    "mi325x": 1.60,
    "mi355x": 2.90,
}


def test_the_newest_constants_have_the_corrected_rentals_and_what_a_default_needs() -> None:
    assert RENTALS.keys() == set(hardware.names()) - {"cpu"}
    for name, rental in RENTALS.items():
        newest, before = hardware.lookup(name), hardware.lookup(name, "2026-07")
        assert newest.constants_date == "2026-09"
        assert newest.usd_per_gpu_h["rental_3y"] == rental
        assert newest.usd_per_gpu_h["hyperscaler"] == before.usd_per_gpu_h["hyperscaler"]
        assert newest.power_kw_per_gpu == before.power_kw_per_gpu
        assert newest.unpriced == {"neocloud": "its source removed this tier in 2026-09; 2026-07 has it"}


def test_an_mi325x_has_the_constants_of_every_date() -> None:
    mi325x = [hardware.lookup("mi325x", date) for date in ("2026-05", "2026-07")]
    assert [rack.power_kw_per_gpu for rack in mi325x] == [2.18, 1.69]
    assert [tuple(rack.usd_per_gpu_h.values()) for rack in mi325x] == [(1.28, 1.59, 1.80), (1.10, 1.32, 1.60)]


def test_constants_that_a_sweep_stored_get_what_is_said_of_them_today() -> None:
    today = hardware.lookup("b300", "2026-05")
    stored = replace(today, caveats={})
    assert hardware.with_caveats(stored) == today
    own = replace(stored, source="our contract")
    assert hardware.with_caveats(own) == own


def test_a_cpu_has_no_price_and_no_power_and_says_why() -> None:
    cpu = hardware.lookup("cpu")
    assert cpu.power_kw_per_gpu is None
    assert cpu.usd_per_gpu_h == {}
    assert "neither a published price nor a provisioned power" in cpu.source


METERED = PowerSource(meter="nvml", counter=True, power="instant", scope="gpu")


@pytest.mark.parametrize(
    ("model", "cap_w", "limit_w"),
    [
        ("NVIDIA GB200", None, 1200.0),
        ("NVIDIA B200", None, 1000.0),
        ("NVIDIA H100 80GB HBM3", None, 700.0),
        ("NVIDIA H200", 550.0, 550.0),
        ("NVIDIA A100-SXM4-80GB", None, None),
        ("NVIDIA A100-SXM4-80GB", 400.0, 400.0),
        (None, None, 1400.0),
        ("", None, 1400.0),
    ],
)
def test_a_gpus_limit_is_what_was_enforced_or_that_of_its_board_or_of_its_racks(
    model: str | None, cap_w: float | None, limit_w: float | None
) -> None:
    gpu = GpuCondition(
        name="decode-0/3", uuid=None, model=model, power_cap_min_w=100.0, power_cap_max_w=cap_w
    )
    found = hardware.power_limits_w([gpu], METERED, "gb300-nvl72")
    assert found == ({} if limit_w is None else {"decode-0/3": limit_w})


def test_what_is_no_board_has_no_boards_limit() -> None:
    gpu = GpuCondition(name="decode-0/3", uuid=None, model="NVIDIA GH200 480GB", power_cap_max_w=700.0)
    nameless = replace(gpu, model=None, power_cap_max_w=None)
    assert hardware.power_limits_w([gpu], replace(METERED, scope="module"), "gb200-nvl72") == {}
    assert hardware.power_limits_w([gpu], PowerSource(meter="simulated", counter=True), "gb200-nvl72") == {}
    assert hardware.power_limits_w([gpu], None, "gb200-nvl72") == {}
    for rack in ("mi300x", "cpu", "our-rack", None):
        assert hardware.power_limits_w([nameless], METERED, rack) == {}


def test_every_nvidia_rack_has_its_boards_limit() -> None:
    nameless = GpuCondition(name="a/0", uuid=None)
    for rack in RENTALS:
        assert bool(hardware.power_limits_w([nameless], METERED, rack)) is not rack.startswith("mi")
