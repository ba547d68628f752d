"""Grace rails in a folder laid out as hwmon is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtpbench.power.agent import GraceSource
from mtpbench.power.log import parse, samples


def lay(root: Path, *rails: tuple[str, str]) -> None:
    for number, (label, microwatts) in enumerate(rails):
        device = root / f"hwmon{number}" / "device"
        device.mkdir(parents=True)
        (device / "power1_oem_info").write_text(f"{label}\n")
        (device / "power1_average").write_text(f"{microwatts}\n")


def test_one_rail_for_each_socket_is_read(tmp_path: Path) -> None:
    lay(
        tmp_path,
        ("Module Power Socket 0", "900000000"),
        ("Grace Power Socket 0", "150000000"),
        ("CPU Power Socket 0", "100000000"),
        ("SysIO Power Socket 0", "20000000"),
        ("Grace Power Socket 1", "160500000"),
    )
    source = GraceSource(tmp_path)
    probe = source.probe()
    assert (str(probe.source), probe.source.scope) == (
        "Grace power through hwmon, integral of power",
        "grace",
    )
    assert [(r.meter, r.power_w, r.energy_j) for r in source.read()] == [(0, 150.0, None), (1, 160.5, None)]
    (tmp_path / "hwmon1" / "device" / "power1_average").unlink()
    assert [r.power_w for r in source.read()] == [None, 160.5]


@pytest.mark.parametrize(
    "said", ["", "N/A", "-1", "nan", "²", "9" * 5000, "18446744073709551615", "1e6", "0x10"]
)
def test_what_a_rail_says_in_place_of_a_number_is_no_reading(tmp_path: Path, said: str) -> None:
    lay(tmp_path, ("Grace Power Socket 0", "150000000"))
    source = GraceSource(tmp_path)
    assert source.probe().reason is None
    (tmp_path / "hwmon0" / "device" / "power1_average").write_text(f"{said}\n")
    assert [reading.power_w for reading in source.read()] == [None]


@pytest.mark.parametrize("label", ["Grace Input Power Socket 0", "Grace Power Input Socket 0"])
def test_some_firmware_says_input_power(tmp_path: Path, label: str) -> None:
    lay(tmp_path, (label, "150000000"))
    assert GraceSource(tmp_path).probe().reason is None


def test_the_cores_alone_serve_where_no_socket_has_more_and_say_so(tmp_path: Path) -> None:
    lay(tmp_path, ("CPU Power Socket 0", "100000000"))
    assert str(GraceSource(tmp_path).probe().source) == "CPU cores power through hwmon, integral of power"


def test_rails_of_different_kinds_are_not_mixed(tmp_path: Path) -> None:
    lay(tmp_path, ("CPU Power Socket 0", "100000000"), ("Grace Power Socket 1", "150000000"))
    reason = GraceSource(tmp_path).probe().reason
    assert str(reason) == "grace_rails: no rail is there for every socket (cpu 0, grace 1)"


def test_the_rail_of_a_module_holds_the_gpu_and_is_not_taken(tmp_path: Path) -> None:
    lay(tmp_path, ("Module Power Socket 0", "900000000"), ("Other thing", "5"))
    assert (
        str(GraceSource(tmp_path).probe().reason)
        == "grace_rails: no rail is there for every socket (module 0)"
    )
    assert (
        str(GraceSource(tmp_path / "none").probe().reason)
        == f"no_grace: no Grace power rail under {tmp_path}/none"
    )


def run(start_sampler, tmp_path: Path, words: str):
    lay(tmp_path / "hwmon", ("Grace Power Socket 0", "150000000"))
    process = start_sampler(tmp_path / "log", words, "--hwmon", str(tmp_path / "hwmon"))
    assert process.stdout.readline() == b'{"ready": true}\n'
    process.communicate(timeout=20)
    return parse((tmp_path / "log").read_text())


def test_the_sampler_reads_grace_beside_the_gpus(start_sampler, tmp_path: Path) -> None:
    found = samples(run(start_sampler, tmp_path, "name GB200 gpus 1"), 0.0, {0: "decode-0"}, node=1)
    assert {(s.process, s.gpu, round(s.power_w)) for s in found} == {
        ("decode-0", 0, 500),
        ("grace@1", 0, 150),
    }


def test_grace_is_not_counted_again_beside_a_module(start_sampler, tmp_path: Path) -> None:
    log = run(start_sampler, tmp_path, "name GH200 gpus 1")
    assert str(log.probes[1].reason) == "grace_in_module: the GPUs' counter covers their Grace already"
    assert {tick.kind for tick in log.ticks} == {"gpu"}
