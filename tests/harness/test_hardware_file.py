"""A file of hardware constants that a reader brings, and what is said of one that can't be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtpbench import hardware
from mtpbench.errors import InputError
from mtpbench.records import Hardware, from_json, to_json

GOOD = """\
source: our contract of November
hardware:
  gb200-nvl72:
    gpu: GB200
    gpus_per_node: 4
    nodes_per_domain: 18
    constants:
      2026-09: {power_kw_per_gpu: 2.0, usd_per_gpu_h: {ours: 4.0}}
      2026-11: {power_kw_per_gpu: 1.9, usd_per_gpu_h: {ours: 3.1, list: 4.5}}
  toaster:
    gpu: TOASTER
    gpus_per_node: 1
    nodes_per_domain: 1
    source: nobody knows
    constants:
      2026-11-01: {power_kw_per_gpu: null, usd_per_gpu_h: {}}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "prices.yaml"
    path.write_text(text, "utf-8")
    return str(path)


def test_a_file_stands_alone_and_says_that_it_was_used(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    assert hardware.names(file) == ("gb200-nvl72", "toaster")
    rack = hardware.lookup("gb200-nvl72", file)
    assert (rack.power_kw_per_gpu, rack.constants_date) == (1.9, "2026-11")
    assert rack.usd_per_gpu_h == {"ours": 3.1, "list": 4.5}
    assert rack.source == f"our contract of November ({file})"
    assert hardware.lookup("toaster", file).power_kw_per_gpu is None
    assert hardware.constants_file(file) == file


def test_hardware_that_the_file_lacks_is_not_taken_from_elsewhere(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    with pytest.raises(
        InputError, match=r"prices\.yaml has no constants of 'b200'; known: gb200-nvl72, toaster"
    ):
        hardware.lookup("b200", file)


def test_the_built_in_file_is_of_the_form_that_is_asked_of_others() -> None:
    built_in = Path(hardware.__file__).parent / "data" / "hardware.yaml"
    assert hardware.names(str(built_in)) == hardware.names()
    for name in hardware.names():
        ours, brought = hardware.lookup(name), hardware.lookup(name, str(built_in))
        assert (ours.usd_per_gpu_h, ours.power_kw_per_gpu) == (
            brought.usd_per_gpu_h,
            brought.power_kw_per_gpu,
        )


def test_a_file_says_what_is_to_be_said_of_its_figures(tmp_path: Path) -> None:
    text = GOOD.replace("hardware:", "caveats: {2026-11: {power: a guess, price: without tax}}\nhardware:", 1)
    text = text.replace("list: 4.5}}", "list: null}, caveats: {price: until May, list: on request}}")
    rack = hardware.lookup("gb200-nvl72", write(tmp_path, text))
    assert rack.caveats == {"power": "a guess", "price": "until May; without tax", "list": "on request"}
    assert (rack.usd_per_gpu_h, rack.unpriced) == ({"ours": 3.1, "list": None}, {"list": "on request"})
    assert from_json(Hardware, to_json(rack)) == rack


def test_a_date_is_no_file() -> None:
    assert hardware.constants_file("2026-05") is None
    assert hardware.constants_file(None) is None


def test_what_is_neither_a_date_nor_a_file_is_refused(tmp_path: Path) -> None:
    for text in ("may", str(tmp_path / "may"), "prices.yaml"):
        with pytest.raises(InputError, match="neither a date such as 2026-05 nor a file that is there"):
            hardware.lookup("b200", text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "list: 4.5}}",
            "list: 4.5}, caveats: {lits: dear}}",
            r":9: .*2026-11.caveats.lits: unknown key; valid: power, price, ours, list",
        ),
        ("hardware:", "caveats: {may: {price: old}}\nhardware:", r":2: caveats.may: is not a date such as"),
        ("hardware:", "caveats: {2026-11: {price: }}\nhardware:", r":2: caveats.2026-11.price: a text is"),
        (
            "{ours: 4.0}",
            "{ours: -4.0}",
            r":8: hardware.gb200-nvl72.constants.2026-09.usd_per_gpu_h.ours: -4.0 is not",
        ),
        ("{ours: 4.0}", "{ours: cheap}", r":8: .*usd_per_gpu_h.ours: cheap is not a number above 0"),
        ("{ours: 4.0}", "{ours: .inf}", r":8: .*usd_per_gpu_h.ours: .inf is not a number above 0"),
        ("{ours: 4.0}", "4.0", r":8: .*usd_per_gpu_h: a mapping by a tier is needed"),
        (
            "power_kw_per_gpu: 2.0",
            "power_w_per_gpu: 2000",
            r":8: .*power_w_per_gpu: unknown key; valid: power_kw",
        ),
        (
            "power_kw_per_gpu: 2.0, ",
            "",
            r":7?8: .*2026-09: power_kw_per_gpu missing; needed: power_kw_per_gpu, usd",
        ),
        ("gpus_per_node: 4", "gpus_per_node: 4.5", r":5: .*gpus_per_node: 4.5 is not a whole number above 0"),
        ("gpu: GB200", "gpu:", r":4: .*gpu: a text is needed"),
        ("gpu: GB200", "gpu: GB200\n    gpu: GB300", r":5: .*gpu: is given twice"),
        ("2026-09:", "last month:", r":8: .*last month: is not a date such as 2026-05"),
        ("source: our", "prices: our", r":1: prices: unknown key; valid: source, hardware"),
        ("source: our contract of November\n", "", r":1: source missing; needed: source, hardware"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_line_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    file = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        hardware.names(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; `source:` and `hardware:` are needed"),
        ("source: us\n}", r":2: not YAML: "),
        ("- a", r":1: a mapping by source, hardware is needed"),
        ("source: us\nhardware: {}", r":2: hardware: is empty; at least a name such as b200 is needed"),
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hardware.names(write(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"not UTF-8 text \(byte 0\)"):
        hardware.names(str(path))


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    assert hardware.lookup("gb200-nvl72", file).power_kw_per_gpu == 1.9
    write(tmp_path, GOOD.replace("power_kw_per_gpu: 1.9", "power_kw_per_gpu: 1.8"))
    assert hardware.lookup("gb200-nvl72", file).power_kw_per_gpu == 1.8
