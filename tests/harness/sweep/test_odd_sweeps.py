"""Sweep files whose YAML is not what it looks like: a plan as YAML 1.2 has it, or exit 2 with file and line.

Dates that became no JSON, octal and sexagesimal numbers, tags and alias bombs: jentic/jentic-one#983,
DataJunction/dj#2448, cloudtools/stacker#591.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from typer.testing import CliRunner

from mtpbench.cli import app
from mtpbench.errors import InputError, SweepError
from mtpbench.plan import command_line, ladders_of
from mtpbench.slurm.submission import job_name
from mtpbench.sweep import load_sweep
from odd_yaml import REAL, SIMULATED, odd_files

BOMB = "[&a [x], " + ", ".join(f"&{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise("abcdefghi")) + "]"


def planned(path: Path) -> list[str]:
    """The command lines of a sweep's plan."""
    ladders = ladders_of(load_sweep(path).points)
    return [command_line(process) for ladder in ladders for process in ladder.deployment.processes]


def planned_or_refused(path: Path, text: str) -> None:
    """Plans a text; an error of the user's names the file, in few words."""
    path.write_text(text, "utf-8", "surrogatepass")
    said = None
    try:
        planned(path)
    except InputError as error:
        said = str(error)
    assert said is None or (str(path) in said and len(said) < 3000)


any_odd = settings(
    max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@any_odd
@given(text=odd_files(SIMULATED))
def test_any_value_at_any_place_is_planned_or_refused(tmp_path: Path, text: str) -> None:
    planned_or_refused(tmp_path / "s.yaml", text)


@any_odd
@given(text=odd_files(REAL))
def test_any_value_at_any_place_of_a_real_engines_is_planned_or_refused(tmp_path: Path, text: str) -> None:
    planned_or_refused(tmp_path / "s.yaml", text)


def options(path: Path, text: str) -> str:
    """The command line of vLLM with one option."""
    path.write_text(
        "sweep: s\nquestion: q\nmodel: {path: m, precision: bf16}\nhardware: cpu\n"
        f"engine: {{name: vllm, flags: {{all: {{x: {text}}}}}}}\n"
        "workload: {isl: 32, osl: 64}\narms: {off: }\ntopologies: [{aggregated: 1xTP1, concurrency: [1]}]\n",
        "utf-8",
    )
    (line,) = planned(path)
    return line.partition(" --x ")[2].split(" --")[0]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        *[
            (same, same)
            for same in ("2026-11-29", "010", "0o10", "1_000", "1e3", "1e10", "12e4", "0b1", "09")
        ],
        *[
            (same, same)
            for same in ("yes", "no", "on", "off", "16", "0.5", "-1", "1.5", "2026-11-29T10:00:00Z", "1:30")
        ],
        ("'2026-11-29'", "2026-11-29"),
        ('"010"', "010"),
        ("!!str 010", "010"),
        ("!!int 0o10", "0o10"),
        ("0x10", "16"),
        ("0.90", "0.9"),
        ("1.0e+3", "1000.0"),
        ('"\\ud83d\\ude00"', "'\U0001f600'"),
        ("{a: 2026-11-29, b: [010, off]}", '\'{"a":"2026-11-29","b":["010","off"]}\''),
    ],
)
def test_an_option_reaches_its_engine_as_it_stands(tmp_path: Path, text: str, word: str) -> None:
    assert options(tmp_path / "s.yaml", text) == word


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (".nan", "'.nan' is no finite number"),
        ("-.inf", "'-.inf' is no finite number"),
        ("1.0e+400", "'1.0e.400' is no finite number"),
        ("!!binary aGk=", "the tag '!!binary' is not one that can be used"),
        ("!!timestamp x", "the tag '!!timestamp'"),
        ("!!python/name:os.system ''", "the tag '!!python/name:os.system'"),
        ("!mine x", "the tag '!mine'"),
        ("!!set {a}", "the tag '!!set'"),
        ("!!int abc", "'abc' is no int, as its tag says"),
        ("!!float x", "'x' is no float"),
        ("!!bool maybe", "'maybe' is no bool"),
        ("9" * 5000, "does not fit into 64 bits"),
        ('"\\ud800"', "half of a surrogate pair"),
        ('"\\0"', r"U\+0000"),
        ('"\\x1b[31m"', r"U\+001B"),
        ('"a\\nb"', r"U\+000A; one line"),
        ('"\\U00110000"', "not YAML"),
        ("{a: 1, a: 2}", "'a' is given twice"),
        ("{? [a] : b}", "a key is a text"),
        ("{<<: 5}", "merges a mapping"),
        ("*nothing", "undefined alias"),
        ("&a [*a]", "an alias to what it stands in"),
        ("[" * 5000 + "]" * 5000, "nested deeper than 50 levels"),
        ("[" + "x," * 30_000 + "]", "more than 20,000 values and keys"),
        (BOMB, "what aliases repeat"),
    ],
)
def test_what_json_has_not_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SweepError, match=said) as caught:
        options(tmp_path / "s.yaml", text)
    assert caught.value.line == 5


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("isl: 64", "isl: 010", "10: workload.isl: '010' is one number to YAML 1.1 and another"),
        ("isl: 64", "isl: 1:30", "10: workload.isl: .*valid integer.*, not '1:30'"),
        ("isl: 64", "isl: 20000000", "10: workload.isl: .*less than or equal to 10000000"),
        ("question: Does it pay?", "question: 5", "2: question: .*, not 5; put it in quotes"),
        ("question: Does it pay?", "question: a\x01b", r"2: holds the control character U\+0001"),
        ("question: Does it pay?", "question: a\x00b", r"2: holds the control character U\+0000"),
        ("concurrency: [1, 2]", "concurrency: [1000000000]", r"16: topologies\[0\].concurrency.*1000000"),
        ("osl: 32}", "osl: 32}\nrepeats: 9999", "more than 10,000 points"),
        ("requests_per_slot: 6", "requests_per_slot: 1.0e+9", "2,000,000,002 requests for one point"),
        ("requests_per_slot: 6", "requests_per_slot: 1.0e+300", "less than or equal to 1000000000"),
        ("sweep: tiny", 'sweep: "tiny\\n"', r"1: sweep: 'tiny\\n': use lower-case"),
        ("sweep: tiny", "sweep: |\n  tiny", r"1: sweep: 'tiny\\n': use lower-case"),
        ("sweep: tiny", f"sweep: {'a' * 300}", "1: sweep: .*at most 120 characters"),
        ("  mtp:", f"  {'m' * 260}:", "at most 80 characters, not 260"),
        ("  mtp:", '  "mtp\\n":', r"arms: 'mtp\\n': use lower-case"),
        (
            "served_name: m",
            'served_name: "a\\r\\nX: y"',
            r"3: model.served_name: holds the character U\+000D",
        ),
        ("path: some/model", 'path: "a\\nb"', r"3: model.path: holds the character U\+000A"),
        ("  speed: 5", '  speed: 5\n  env: {all: {A: "b\\nc"}}', r"9: engine.env.all.A: holds"),
        ("  speed: 5", '  speed: 5\n  env: {all: {"A=B": c}}', "'A=B' is no name of an environment variable"),
        (
            "  speed: 5",
            "  speed: 5\n  env: {all: {HF_TOKEN: hf_abcdef}}",
            r"9: engine.env.all.HF_TOKEN: a secret stands here as it is; write `@\{env:HF_TOKEN\}`",
        ),
        ("isl: 64", "isl: true", "10: workload.isl: true and false are neither numbers nor texts"),
        ("acceptance: golden", "acceptance: {rates: [true]}", "acceptance.rates: true and false are neither"),
        ("acceptance: golden", "acceptance: {length: 0.5}", r"mtp.acceptance.length: .* equal to 1, not 0.5"),
        ("acceptance: golden", "acceptance: {length: 2, golden: a}", "mtp.acceptance: give exactly one of"),
        (
            "acceptance: golden",
            "acceptance: 2.5",
            "mtp.acceptance: 2.5 is no acceptance policy; say measured",
        ),
        ("osl: 32}", "osl: 32}\nload: {pacing: {a: b}}", "load.pacing: input should be 'closed'"),
        ("path: some/model", "path: 'http://me:word@hub/model'", "3: model.path: a password stands in a URL"),
        ("isl: 64", 'isl: 64, prompts: dataset, dataset: "a\\nb"', "10: workload.dataset: holds"),
        ("osl: 32}", 'osl: 32}\nload: {api_key_env: "A\\nB"}', "load.api_key_env: .* is no name"),
        ("1xTP4", "99999xTP8", "16: topologies.*less than or equal to 16384"),
        ("1xTP4", "2048xTP1024", "16: topologies.*GPUs; at most 16,384"),
        ("stream-interval: 4", '"": 4', "is no name of an option"),
    ],
)
def test_what_no_sweep_means_is_refused_with_its_line(write_sweep, old: str, new: str, said: str) -> None:
    with pytest.raises(SweepError, match=f"tiny.yaml:{'' if re.match('[0-9]+:', said) else '.*'}{said}"):
        load_sweep(write_sweep((old, new)))


def test_values_are_those_of_the_core_schema(write_sweep) -> None:
    path = write_sweep(
        ("isl: 64", "isl: 0o100"),
        ("osl: 32", "osl: 0x20"),
        ("min_window_s: 0.1", "min_window_s: 1e-1"),
        ("question: Does it pay?", 'question: "\\ud83d\\ude00 2026-11-29"'),
        ("path: some/model", "path: 2026-11-29"),
        ("precision: fp4", "precision: off"),
    )
    sweep = load_sweep(path)
    point = sweep.points[0]
    assert (point.workload.isl, point.workload.osl, point.measurement.min_window_s) == (64, 32, 0.1)
    assert (sweep.info.question, point.model.path) == ("\U0001f600 2026-11-29", "2026-11-29")
    assert point.model.precision == "off"


def test_merge_keys_merge_and_own_keys_win(write_sweep) -> None:
    path = write_sweep(
        ("sweep: tiny", "sweep: tiny"),
        ("workload: {isl: 64, osl: 32}", "workload: {<<: [{isl: 1, osl: 32}, {isl: 2, osl: 33}], isl: 64}"),
    )
    workload = load_sweep(path).points[0].workload
    assert (workload.isl, workload.osl) == (64, 32)


@pytest.mark.parametrize(
    "what", ["utf-16", "bom", "crlf", "empty", "two", "list", "fifo", "folder", "device", "latin-1"]
)
def test_files_that_are_no_sweep_are_refused(write_sweep, tmp_path: Path, what: str) -> None:
    path = write_sweep()
    data = path.read_bytes()
    said = {
        "utf-16": ":1: can't be read: not UTF-8",
        "latin-1": ":2: can't be read: not UTF-8",
        "empty": ":1: a mapping of keys is needed: `sweep:`, `question:`, `model:`",
        "two": ":17: not YAML: but found another document",
        "list": ":1: a mapping of keys is needed",
        "fifo": "is a FIFO",
        "folder": "is a folder",
        "device": "/dev/zero: is a device",
    }
    match what:
        case "utf-16":
            path.write_bytes(data.decode().encode("utf-16"))
        case "latin-1":
            path.write_bytes(data.replace(b"pay", b"p\xe9y"))
        case "bom" | "crlf":
            path.write_bytes(b"\xef\xbb\xbf" + data if what == "bom" else data.replace(b"\n", b"\r\n"))
        case "empty" | "list":
            path.write_text("" if what == "empty" else "- a\n")
        case "two":
            path.write_bytes(data + b"---\n" + data)
        case "fifo":
            path.unlink()
            os.mkfifo(path)
        case "folder":
            path = tmp_path
        case "device":
            path = Path("/dev/zero")
    if what not in said:
        assert load_sweep(path).points
        return
    with pytest.raises(SweepError, match=said[what]):
        load_sweep(path)


def test_a_file_of_a_gigabyte_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(SweepError, match="is larger than 1,048,576 bytes"):
        load_sweep(path)


def test_the_longest_names_make_file_names_that_fit(write_sweep) -> None:
    """With what is put around them: a hidden copy, a host of 64 bytes, a process id."""
    path = write_sweep(
        ("sweep: tiny", f"sweep: {'s' * 120}"),
        ("  mtp:", f"  {'m' * 80}:"),
        ("{aggregated: 1xTP4, concurrency: [1, 2]}", "{prefill: {workers: 1, tp: 2, dp: 2, ep: 4}, decode: "
         "{workers: 16, tp: 4, dp: 2, ep: 8}, concurrency: [1000000], rate_rps: [123456.789]}"),
        ("osl: 32}", "osl: 32}\nload: {pacing: poisson}"),
        ("requests_per_slot: 6", "requests_per_slot: 1"),
    )  # fmt: skip
    sweep = load_sweep(path)
    longest = max([*(p.id for p in sweep.points), *(p.deployment_key for p in sweep.points)], key=len)
    assert len(f".{longest}@{'h' * 64}@{'9' * 10}.json.partial".encode()) < 255
    assert len(f"{job_name(f'{sweep.info.name}.simulated', 99_999, 'r')}.json".encode()) < 255


def test_a_plan_prints_marks_as_they_are(write_sweep) -> None:
    path = write_sweep(("question: Does it pay?", "question: 'does [/b] pay [bold'"))
    done = CliRunner().invoke(app, ["plan", str(path)])
    assert done.exit_code == 0, done.output
    assert "does [/b] pay [bold" in done.output


def test_placeholders_hide_nothing_from_quotes(write_sweep) -> None:
    path = write_sweep(
        ("name: simulated", "name: vllm"),
        ("  clock: scaled\n  speed: 5\n", ""),
        ("stream-interval: 4", "x: '@{dir}/$(id)', y: '@{env:A}/b'"),
    )
    line = planned(path)[0]
    assert "--x '@{dir}/$(id)' --y @{env:A}/b" in line
