"""`system_power.json`: the three kinds, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from mtpbench.errors import InputError
from mtpbench.power.provisioned import (
    ComponentPower,
    DeclaredPower,
    GroupedPower,
    Publication,
    RackPower,
    describe,
    render,
    total_w,
)

SOURCE = Publication(link="https://example.org/spec", date="2026-09-24")


def group(count: int, tdp_w: float, source: Publication = SOURCE) -> ComponentPower:
    return ComponentPower(count=count, tdp_w=tdp_w, source=source)


GROUPED = GroupedPower(
    cpu=group(2, 350.0),
    accelerator=group(8, 1000.0),
    scale_up_network=group(4, 100.0),
    cooling="air",
)
RACK = RackPower(rack_power_w=132_000.0, rack_nodes=18, nodes=4, source=SOURCE)


def test_a_declared_total_is_used_as_it_is():
    power = DeclaredPower(power_w=14_300.0, source=SOURCE)
    assert total_w(power) == 14_300
    assert json.loads(render(power)) == {
        "provisioned_power_w": 14_300.0,
        "link": "https://example.org/spec",
        "source_date": "2026-09-24",
    }


def test_a_racks_power_counts_by_nodes():
    assert total_w(RACK) == pytest.approx(132_000 * 4 / 18)
    assert {"rack_power_w": 132_000.0, "rack_nodes": 18, "submitted_nodes": 4}.items() <= describe(
        RACK
    ).items()


def test_groups_add_up_with_what_else_a_system_draws():
    assert total_w(GROUPED) == pytest.approx((700 + 8000 + 400) * 1.5)
    assert total_w(dataclasses.replace(GROUPED, cooling="liquid")) == pytest.approx(9100 * 1.3)
    assert total_w(dataclasses.replace(GROUPED, cooling="passive", overhead_fraction=0.1)) == pytest.approx(
        10_010
    )
    sourced = {"link": "https://example.org/spec", "source_date": "2026-09-24"}
    assert describe(GROUPED) == {
        "cpu": {"num_cpu": 2, "tdp_per_cpu": 350.0, **sourced},
        "accelerator": {"num_accelerator": 8, "tdp_per_accelerator": 1000.0, **sourced},
        "scale_up_network": {"num_switches": 4, "tdp_per_switch": 100.0, **sourced},
        "overhead_fraction": 0.5,
        "cooling": "air",
    }


def test_compute_takes_the_place_of_cpu_and_accelerator():
    power = GroupedPower(compute=group(36, 2700.0), scale_up_network=group(0, 0.0), cooling="liquid")
    assert total_w(power) == pytest.approx(36 * 2700 * 1.3)
    assert "cpu" not in describe(power)


@pytest.mark.parametrize(
    ("power", "words"),
    [
        (DeclaredPower(power_w=0.0, source=SOURCE), "provisioned_power_w 0.0: watts above 0"),
        (DeclaredPower(power_w=9.0, source=Publication(link="", date="2026")), "a public source"),
        (dataclasses.replace(RACK, nodes=19), "submitted_nodes 19: from 1 to the rack's 18"),
        (dataclasses.replace(GROUPED, cpu=None), "cpu: a count and a TDP are needed; missing is not 0 W"),
        (dataclasses.replace(GROUPED, compute=group(1, 1.0)), "compute stands for"),
        (dataclasses.replace(GROUPED, accelerator=group(0, 1000.0)), "accelerator: a count of 0"),
        (dataclasses.replace(GROUPED, cpu=group(2, float("nan"))), "cpu.tdp_per_cpu nan"),
        (dataclasses.replace(GROUPED, cooling="passive"), "cooling 'passive': liquid or air"),
        (dataclasses.replace(GROUPED, overhead_fraction=-0.1), "overhead_fraction -0.1"),
        (dataclasses.replace(GROUPED, overhead_fraction=30.0), "overhead_fraction 30.0: 0 to 10 is needed"),
        (dataclasses.replace(GROUPED, overhead_fraction=float("nan")), "overhead_fraction nan"),
        (DeclaredPower(power_w=1e308, source=SOURCE), r"provisioned_power_w 1e\+308: .*no more than 1e\+09"),
        (dataclasses.replace(GROUPED, cpu=group(10**400, 350.0)), "cpu: a count of 10+; 1000000 is the most"),
        (dataclasses.replace(RACK, rack_nodes=10**400), "racks of 1000000 nodes at most"),
    ],
)
def test_what_gives_no_honest_total_is_refused(power, words):
    with pytest.raises(InputError, match=words):
        render(power)
