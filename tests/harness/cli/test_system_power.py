"""`mtpbench system-power` and the file that it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtpbench.cli import app
from mtpbench.errors import InputError
from mtpbench.power.provisioned import system_power
from mtpbench.yaml_files import read_yaml

RACK = """\
rack_power_w: 132000
rack_nodes: 18
submitted_nodes: 4
link: https://example.org/nvl72
source_date: 2026-09-24
"""
GROUPS = """\
cpu: {num_cpu: 2, tdp_per_cpu: 350, link: "https://example.org/cpu", source_date: 2026-09}
accelerator: {num_accelerator: 8, tdp_per_accelerator: 1000, link: "http://a.org/g", source_date: 2026-09}
scale_up_network: {num_switches: 4, tdp_per_switch: 100, link: "https://example.org/s", source_date: 2026-09}
cooling: air
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "system.yaml"
    path.write_text(text, "utf-8")
    return path


def test_a_rack_by_nodes_becomes_the_form(tmp_path: Path) -> None:
    out = tmp_path / "system_power.json"
    path = write(tmp_path, RACK)
    ended = CliRunner().invoke(app, ["system-power", str(path), "-o", str(out), "--gpus", "16"])
    assert ended.exit_code == 0, ended.output
    assert "29.333 kW provisioned" in ended.output
    assert "1.833 kW per GPU of 16" in ended.output
    assert "--kw-per-gpu 1.833`" in ended.output
    assert json.loads(out.read_text()) == {
        "rack_power_w": 132_000.0,
        "rack_nodes": 18,
        "submitted_nodes": 4,
        "link": "https://example.org/nvl72",
        "source_date": "2026-09-24",
    }


def test_component_groups_become_the_form_with_their_overhead(tmp_path: Path) -> None:
    out = tmp_path / "form.json"
    ended = CliRunner().invoke(app, ["system-power", str(write(tmp_path, GROUPS)), "-o", str(out)])
    assert "13.650 kW provisioned" in ended.output  # (2 × 350 + 8 × 1000 + 4 × 100) × 1.5
    assert json.loads(out.read_text())["overhead_fraction"] == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "link: x\nsource_date: 2026-09\n",
            r"system.yaml:1: one of three kinds is needed: provisioned_power_w;",
        ),
        (RACK + "provisioned_power_w: 3\n", "one of three kinds is needed"),
        (
            RACK.replace("132000", "-1"),
            r"system.yaml:1: rack_power_w: input should be greater than 0, not -1",
        ),
        (
            RACK.replace("rack_nodes: 18\n", ""),
            "rack_nodes and submitted_nodes are needed beside rack_power_w",
        ),
        (
            RACK.replace("submitted_nodes: 4", "submitted_nodes: 19"),
            "submitted_nodes 19: from 1 to the rack's 18",
        ),
        (
            RACK.replace("rack_nodes", "rack_node"),
            r"system.yaml:2: rack_node: unknown key; did you mean 'rack_nodes'",
        ),
        (
            RACK.replace("link: https://example.org/nvl72\n", ""),
            "a figure without a public source is a claim",
        ),
        (RACK.replace("2026-09-24", "last week"), r"system.yaml:5: source_date: string should match pattern"),
        (GROUPS.replace("cooling: air", "cooling: hope"), "cooling 'hope': liquid or air is known"),
        (GROUPS.replace("num_cpu: 2", "num_cpu: 0"), "cpu: a count of 0; at least 1 is needed"),
        (GROUPS.replace("tdp_per_cpu: 350, ", ""), r"system.yaml:1: cpu.tdp_per_cpu: is missing"),
        ("[1]", "a mapping"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        system_power(read_yaml(write(tmp_path, text)))


def test_nothing_is_written_where_something_is_wrong(tmp_path: Path) -> None:
    out = tmp_path / "form.json"
    ended = CliRunner().invoke(app, ["system-power", str(tmp_path / "none.yaml"), "-o", str(out)])
    assert isinstance(ended.exception, InputError)
    assert not out.exists()
