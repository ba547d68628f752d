"""Whatever a user names is read within bounds: no FIFO, device, folder or endless file holds a command up."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtpbench import hardware
from mtpbench.errors import InputError, SweepError
from mtpbench.input_files import (
    check_line,
    clean_text,
    compose_yaml,
    parse_json_object,
    plain_data,
    read_lines,
)
from mtpbench.power.provisioned import system_power
from mtpbench.records import Workload
from mtpbench.simengine.profile import load_profile
from mtpbench.simengine.profile_fit import read_points
from mtpbench.slurm.cluster_profile import load_cluster
from mtpbench.sweep import load_sweep
from mtpbench.workload import count_lines
from mtpbench.workload.tokenizer import ChatTokenizer
from mtpbench.yaml_files import read_yaml

READERS: dict[str, Callable[[Path], object]] = {
    "sweep.yaml": load_sweep,
    "cluster.yaml": lambda path: load_cluster(str(path)),
    "system.yaml": lambda path: system_power(read_yaml(path)),
    "constants.yaml": lambda path: hardware.names(str(path)),
    "profile.json": lambda path: load_profile(str(path)),
    "points.csv": read_points,
    "data.jsonl": lambda path: count_lines(Workload(isl=1, osl=2, prompts="dataset", dataset_path=str(path))),
    "tokenizer.json": ChatTokenizer,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "missing", "unreadable", "loop", "large"])
def test_what_has_no_end_is_refused_by_name(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "unreadable":
            path.symlink_to("/proc/self/mem")
        case "loop":
            path.symlink_to(path)
        case "large":
            with path.open("wb") as file:
                file.truncate(1 << 31)
    with pytest.raises(InputError, match=name) as refused:
        READERS[name](path)
    # What is there, and is no file, is not said to be missing.
    if kind in ("fifo", "folder", "device") and (name, kind) != ("tokenizer.json", "folder"):
        assert f"is a {'FIFO' if kind == 'fifo' else kind}; a regular file is needed" in str(refused.value)


@pytest.mark.parametrize("name", READERS)
def test_a_path_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        READERS[name](Path(f"a\0b/{name}"))


def test_a_line_without_end_and_a_compressed_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n{}\n" + b"x" * 100)
    with pytest.raises(SweepError, match=r"data.jsonl:3: the line is longer than 50 bytes"):
        list(read_lines(path, 50))
    path.write_bytes(gzip.compress(b"{}\n"))
    with pytest.raises(SweepError, match="compressed by gzip; unpack it first"):
        list(read_lines(path))
    path.write_bytes(b"\xef\xbb\xbf{}\r\n\r\n  {}")
    assert list(read_lines(path)) == [(1, b"{}"), (3, b"{}")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"b": {"a": 1, "a": 2}}', "'a' is given twice"),
        ('{"a": "\\ud800"}', "not JSON"),
        ('{"a": NaN}', "not JSON"),
        ('{"a": ' + "[" * 2000, "not JSON"),
        ("[1]", "a JSON object was expected"),
    ],
)
def test_a_line_of_json_is_one_object_that_every_reader_takes_alike(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json_object(text.encode(), ("a",))


def test_a_key_inside_a_text_is_none() -> None:
    text = b'{"a": "\\"a\\": \\"a\\" a", "b": ["a", "a"]}'
    assert parse_json_object(text, ("a",)) == orjson.loads(text)


@given(st.text())
def test_a_text_is_kept_or_holds_what_it_should_not(text: str) -> None:
    try:
        assert clean_text(text) == text
    except ValueError:
        assert not text.isprintable()
    try:
        assert check_line(text) == text
    except ValueError:
        assert not text.isprintable()
    else:
        assert not set(text) & {"\0", "\n", "\r", "\x1b", "\x85"}


@given(st.text(st.characters(min_codepoint=0x10000, exclude_categories=()), min_size=1))
def test_pairs_of_surrogates_are_the_characters_that_json_means(text: str) -> None:
    units = text.encode("utf-16-le")
    halves = [chr(int.from_bytes(units[i : i + 2], "little")) for i in range(0, len(units), 2)]
    try:
        assert clean_text("".join(halves)) == text
    except ValueError as error:
        raise AssertionError("a pair is a character") from error


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(min_codepoint=32, max_codepoint=126)),
)


@given(
    st.recursive(
        SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner), max_leaves=12
    )
)
def test_json_is_yaml(value: object) -> None:
    assert plain_data(compose_yaml(orjson.dumps(value).decode(), Path("x"))) == value
