"""The price and the power that a table's dollars and megawatts rest on, and what a reader may change."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtpbench.errors import InputError
from mtpbench_analysis.curves.cost import (
    YOUR_PRICE,
    find_economics,
    has_constants,
    price_text,
    resolve_name,
)

FILE = """\
source: our contract
hardware:
  gb200-nvl72:
    gpu: GB200
    gpus_per_node: 4
    nodes_per_domain: 18
    constants:
      2026-11: {power_kw_per_gpu: 1.9, usd_per_gpu_h: {ours: 3.1}}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "prices.yaml"
    path.write_text(FILE, "utf-8")
    return str(path)


def test_all_tiers_are_there() -> None:
    economics = find_economics("gb200", "2026-05")
    assert economics.tiers == ("hyperscaler", "neocloud", "rental_3y")
    assert [economics.price(tier) for tier in economics.tiers] == [2.21, 2.75, 3.30]


def test_what_the_source_says_of_a_figure_stands_beside_it() -> None:
    assert find_economics("b300", "2026-05").label.startswith(
        "B300 at $2.34 per GPU-hour (hyperscaler; temporary in its source: 1.2 × B200's; survey of 2025-08), "
        "2.17 kW provisioned per GPU (scope not stated; corrected by its source in 2026-07)"
    )
    assert find_economics("gb300").label == (
        "GB300 at $2.31 per GPU-hour (hyperscaler), 2.12 kW provisioned per GPU (chip and its share of host "
        "and NICs), constants of 2026-09"
    )
    older = find_economics("gb300", "2026-07", "rental_3y")
    assert older.label.startswith(
        "GB300 at $3.30 per GPU-hour (rental_3y; corrected by its source in 2026-09)"
    )
    # What is said of the source's figures is not said of the reader's own.
    assert older.with_price(4).with_power(2).caveats == ("asked for with --kw-per-gpu",)


def test_a_tier_that_the_source_dropped_has_no_price_and_says_why() -> None:
    economics = find_economics("gb200", tier="neocloud")
    assert (economics.usd_per_gpu_h, economics.tiers) == (None, ("hyperscaler", "neocloud", "rental_3y"))
    assert economics.label.startswith(
        "GB200 at an unknown price (neocloud: its source removed this tier in 2026-09; 2026-07 has it), "
    )
    assert find_economics("gb200", "2026-07", "neocloud").usd_per_gpu_h == 2.26
    assert economics.with_price(3).usd_per_gpu_h == 3


def test_a_price_of_ones_own_says_that_it_is() -> None:
    economics = find_economics("gb200", "2026-05").with_price(3.3)
    assert (economics.usd_per_gpu_h, economics.tier) == (3.3, YOUR_PRICE)
    assert economics.label == (
        "GB200 at $3.30 per GPU-hour (your price, asked for with --usd-per-gpu-h), "
        "2.1 kW provisioned per GPU (scope not stated; corrected by its source in 2026-07), constants of "
        "2026-05"
    )
    assert economics.price("neocloud") == 2.75


def test_a_power_of_ones_own_says_that_it_is() -> None:
    economics = find_economics("gb200", "2026-05").with_power(2.5)
    assert economics.hardware.power_kw_per_gpu == 2.5
    assert "2.5 kW provisioned per GPU (asked for with --kw-per-gpu), constants of 2026-05" in economics.label


def test_both_can_be_given_where_neither_was_known() -> None:
    economics = find_economics("cpu").with_price(0.05).with_power(0.4)
    assert economics.label == (
        "CPU at $0.05 per GPU-hour (your price, asked for with --usd-per-gpu-h), 0.4 kW provisioned per GPU "
        "(asked for with --kw-per-gpu), constants of 2026-11"
    )


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_prices_and_powers_are_above_0(value: float) -> None:
    economics = find_economics("gb200")
    with pytest.raises(InputError, match=r"--usd-per-gpu-h .* above 0 are needed"):
        economics.with_price(value)
    with pytest.raises(InputError, match=r"--kw-per-gpu .* above 0 are needed"):
        economics.with_power(value)


def test_a_file_is_named_in_the_label(file: str) -> None:
    economics = find_economics("GB200", file, "ours")
    assert economics.label == (
        f"GB200 at $3.10 per GPU-hour (ours), 1.9 kW provisioned per GPU, constants of 2026-11 from {file}"
    )
    assert economics.tiers == ("ours",)
    with pytest.raises(InputError, match="no price of tier 'hyperscaler'; tiers: ours"):
        find_economics("gb200", file)


def test_names_are_resolved_among_those_of_the_file(file: str) -> None:
    assert resolve_name("GB200", file) == "gb200-nvl72"
    assert has_constants("gb200", file)
    assert not has_constants("b200", file)
    assert has_constants("b200")


def test_prices_show_their_cents() -> None:
    assert [price_text(usd) for usd in (3.3, 2.652, 2.21, 12.0)] == ["$3.30", "$2.652", "$2.21", "$12.00"]
