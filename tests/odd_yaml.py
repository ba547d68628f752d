"""Valid files with something odd in one place, for the tests of every file of YAML that users write."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import strategies as st

HERE = "@@HERE@@"

SIMULATED: dict[str, Any] = {
    "sweep": "s",
    "question": "Does it pay?",
    "model": {"path": "m", "served_name": "m", "precision": "fp4"},
    "hardware": "gb200-nvl72",
    "engine": {
        "name": "simulated",
        "clock": "scaled",
        "speed": 5,
        "flags": {"all": {"stream-interval": 4}},
        "env": {"all": {"A": "b"}},
    },
    "workload": {"isl": 64, "osl": 32, "prompts": "random"},
    "load": {"transport": "auto", "stall_s": 1},
    "measurement": {"warmup_per_slot": 1, "requests_per_slot": 6, "min_requests": 6, "min_window_s": 0.1},
    "arms": {"off": None, "mtp": {"draft_tokens": 3, "acceptance": "golden"}},
    "topologies": [{"aggregated": "1xTP4", "concurrency": [1, 2]}],
    "targets": [20],
}
REAL: dict[str, Any] = SIMULATED | {
    "engine": {"name": "vllm", "image": "i", "command": ["vllm"], "flags": {"all": {"revision": "x"}}},
    "arms": {"off": None, "mtp": {"draft_tokens": 3, "forces": {"all": {"x": {"y": [1]}}}}},
}

SCALARS = (
    *(
        "2026-11-29",
        "2026-99-99",
        "2026-11-29T00:00:00+99:99",
        ".nan",
        ".inf",
        "-.Inf",
        "1e400",
        "1e3",
        "1.0e+300",
    ),
    *(
        "010",
        "0o10",
        "0x10",
        "0b1",
        "09",
        "-0",
        "+1",
        "1_000",
        "1:30",
        "1:30:00",
        "59:59:59:59",
        "1e-300",
        ".5",
        "5.",
    ),
    *("yes", "no", "on", "off", "true", "TRUE", "null", "~", "", "<<", "=", "*x", "&x 1", "!!binary aGk="),
    *(
        "!!int abc",
        "!!int 010",
        "!!float x",
        "!!bool maybe",
        "!!null x",
        "!!timestamp x",
        "!!set {a}",
        "!foo bar",
    ),
    *(
        "!!omap [a: 1]",
        "!!str 5",
        "!!str {a: b}",
        "!!seq x",
        "!!map x",
        "!!python/name:os.system",
        "!!int [1]",
    ),
    *(
        '"\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\0"',
        '"\\x1b[31m"',
        '"a\\nb"',
        '"a\\n"',
        '"\\U00110000"',
        '"[/b]"',
        '"é"',
    ),
    *(
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "9" * 400,
        "9" * 5000,
        "0x" + "f" * 5000,
    ),
    *(
        "[]",
        "{}",
        "[1, 2]",
        "{a: 1}",
        "{off: 1}",
        "{1: 2, true: 3}",
        "{? [a] : b}",
        "{a: 1, a: 2}",
        "{<<: {a: 1}}",
    ),
    *(
        "{<<: 5}",
        "[" * 30 + "]" * 30,
        "[" * 5000,
        "{a: " * 60 + "1" + "}" * 60,
        "[*x, *x]",
        "&x [*x]",
        "'",
        '"',
        "|",
    ),
    *(
        "- a",
        "? a",
        "a: b",
        ": ",
        "%",
        "@",
        "`",
        "#",
        "---",
        "...",
        "x" * 3000,
        "../../etc/passwd",
        "/dev/zero",
        "/etc",
    ),
    *(
        "@{env:HOME}",
        "@{nothing}",
        "$(id)",
        "a b",
        "-x",
        "--port 1",
        "1000000000",
        "[1000000000]",
        "1.5",
        "-1",
        "0",
    ),
    *(
        "6xDEP8",
        "0xTP1",
        "99999xTP99999",
        "1xTP" + "9" * 30,
        "golden",
        "{rates: [0.5]}",
        "{length: 2.5}",
        "measured",
    ),
)
"""Texts of values that mean something else to some reader of YAML, or to what comes after it."""


def places(data: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values of a document."""
    yield where
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*where, key))


def with_value(data: Any, where: tuple[Any, ...], text: str) -> str:
    """The text of a document, in YAML's flow style, with a text in place of one value."""

    def changed(value: Any, path: tuple[Any, ...]) -> Any:
        if not path:
            return HERE
        if isinstance(value, dict):
            return {key: changed(item, path[1:]) if key == path[0] else item for key, item in value.items()}
        return [changed(item, path[1:]) if i == path[0] else item for i, item in enumerate(value)]

    return json.dumps(changed(data, where), indent=1, ensure_ascii=False).replace(f'"{HERE}"', text)


def with_key(data: Any, where: tuple[Any, ...], text: str) -> str:
    """The same with a text in place of a key, or beside the items of a list."""

    def changed(value: Any, path: tuple[Any, ...]) -> Any:
        if not path and isinstance(value, dict):
            return {**value, HERE: 1}
        if isinstance(value, dict):
            return {key: changed(item, path[1:]) if key == path[0] else item for key, item in value.items()}
        if isinstance(value, list):
            items = [
                changed(item, path[1:]) if path and i == path[0] else item for i, item in enumerate(value)
            ]
            return items if path else [*items, HERE]
        return value

    return json.dumps(changed(data, where), indent=1, ensure_ascii=False).replace(f'"{HERE}"', text)


def odd_files(data: Any) -> st.SearchStrategy[str]:
    """Texts of a document with one odd value or key."""
    texts = st.one_of(
        st.sampled_from(SCALARS),
        st.text(max_size=12),
        st.integers().map(str),
        st.floats().map(repr),
        st.from_regex(r"[-+0-9.:eExo_]{1,12}", fullmatch=True),
    )
    where = st.sampled_from([*places(data)])
    return st.one_of(
        st.builds(with_value, st.just(data), where, texts), st.builds(with_key, st.just(data), where, texts)
    )


def as_yaml(data: Any) -> str:
    """A document in YAML's block style, as people write it."""
    return yaml.safe_dump(data, sort_keys=False)


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes with a few slices taken out, doubled, or replaced."""
    place = st.integers(0, len(data))
    filling = st.one_of(
        st.binary(max_size=6), st.sampled_from(SCALARS).map(lambda text: text.encode()), st.just(data)
    )
    return st.lists(st.tuples(place, st.integers(0, 12), filling), min_size=1, max_size=4).map(
        lambda changes: functools.reduce(_changed, changes, data)
    )


def _changed(data: bytes, change: tuple[int, int, bytes]) -> bytes:
    place, length, filling = change
    return data[:place] + filling + data[place + length :]
