"""Datasets, tokenizers and profiles: prompts of them are built, or they are refused with file and line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from mtpbench.errors import InputError
from mtpbench.load.pacer import RequestCounts
from mtpbench.records import Load, Measurement, WorkerGroup, Workload
from mtpbench.simengine.faults import parse_faults
from mtpbench.simengine.profile import parse_profile, read_data
from mtpbench.simengine.profile_fit import read_points
from mtpbench.workload import WORDS, Prompts, draw_lengths
from mtpbench.workload.tokenizer import ChatTokenizer
from odd_yaml import mutated

ODD = (
    "null",
    "true",
    "1e999",
    "-1",
    "0",
    "1",
    "10000000",
    "10000001",
    "9" * 30,
    "1.5",
    '""',
    '"a"',
    '"\\u0000"',
)
ODD += (
    '"\\ud800"',
    '"\\ud83d\\ude00"',
    "[]",
    "{}",
    "[1]",
    '["a"]',
    "[" * 300 + "]" * 300,
    "[" * 2000,
    "NaN",
    "1e300",
)
LINES = (
    '{"prompt": "a b", "output_tokens": 3}',
    '{"prompt_token_ids": [1, 2, 3]}',
    '{"messages": [{"role": "user", "content": "hi"}], "session_id": "s"}',
    '{"messages": [{"role": "user", "content": "ho"}], "session_id": "s", "delay": 5}',
    '{"input_length": 600, "hash_ids": [1, 2], "timestamp": 10, "output_length": 4}',
    '{"input_length": 5, "timestamp": 20}',
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def check(named: str, use: Callable[[], object]) -> None:
    said = None
    try:
        use()
    except InputError as error:
        said = str(error)
    assert said is None or (named in said and len(said) < 3000)


def use_dataset(path: Path, chat: bool) -> None:
    workload = Workload(isl=8, osl=4, prompts="dataset", dataset_path=str(path), chat_template=chat)
    prompts = Prompts(workload, draw_lengths(workload, 5, 1), 1, model_name="m", continuous_usage=False)
    for index in range(5):
        assert orjson.loads(prompts.body(index))["model"] == "m"


def odd_line(line: str, key: str, value: str) -> str:
    return line[:-1] + f', "{key}": {value}}}'


KEYS = st.sampled_from(
    (
        *("prompt", "prompt_token_ids", "messages", "input_length", "hash_ids", "timestamp", "delay"),
        *("session_id", "output_tokens", "output_length", "role", "content", "x"),
    )
)
LINE = st.one_of(
    st.sampled_from(LINES),
    st.builds(odd_line, st.sampled_from(LINES), KEYS, st.sampled_from(ODD)),
    st.builds(lambda key, value: f'{{"{key}": {value}}}', KEYS, st.sampled_from(ODD)),
    st.text(max_size=10),
)


@settings(max_examples=200)
@given(
    lines=st.lists(LINE, max_size=4), end=st.sampled_from(("\n", "\r\n", "\r", "\n\n")), chat=st.booleans()
)
def test_odd_lines(folder: Path, lines: list[str], end: str, chat: bool) -> None:
    path = folder / "data.jsonl"
    path.write_bytes(end.join(lines).encode("utf-8", "surrogatepass"))
    check(str(path), lambda: use_dataset(path, chat))


@settings(max_examples=100)
@given(data=mutated("\n".join(LINES[4:]).encode()), chat=st.booleans())
def test_bytes_of_a_dataset_changed(folder: Path, data: bytes, chat: bool) -> None:
    path = folder / "data.jsonl"
    path.write_bytes(data)
    check(str(path), lambda: use_dataset(path, chat))


PROFILE: dict[str, Any] = {
    "name": "n",
    "about": "a",
    "decode_step_ms": {"dep8_k0": [[1, 2.0], [4, 3.0]], "tp4_k0": [[1, 2.0]], "tp4_k1": [[1, 3.0]]},
    "prefill_ms": {"ctx_dep8": [[1, 500.0], [2, 900.0]], "ctx_tp4": [[1, 500.0]]},
    "prefill_prompt_tokens": 8192,
    "kv_tokens_per_rank": {"dep8": 1000, "tp4": 1000},
    "transfer_ms": {"base": 1, "per_token": 0.1},
    "power_w": {"idle": 1, "prefill": 2, "decode": 3},
    "factors": {"decode_scale": {"tp": 1.0}, "decode_overhead_ms": {"tp": 0.1}, "prefill_scale": 1.0},
}


def use_profile(path: Path) -> None:
    profile = parse_profile(read_data(str(path)), str(path))
    group = WorkerGroup(role="aggregated", workers=1, tp=4)
    for drafts in (0, 1, 3):
        try:
            assert (profile.step_times_s(group, drafts, 64)[1:] > 0).all()
            assert profile.prefill_line_s(group).at(8) > 0
            profile.kv_tokens(group), profile.transfer_s(100)
        except InputError:
            return


@settings(max_examples=200)
@given(data=mutated(json.dumps(PROFILE).encode()))
def test_bytes_of_a_profile_changed(folder: Path, data: bytes) -> None:
    path = folder / "profile.json"
    path.write_bytes(data)
    check(str(path), lambda: use_profile(path))


TEMPLATE = "{{ bos_token }}{% for m in messages %}<|u|>{{ m['content'] }}{% endfor %}<|a|>"


def model(folder: Path) -> tuple[bytes, bytes]:
    """The two files of a tokenizer of whole words."""
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "<|u|>", "<|a|>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "whole.json"))
    config = {"bos_token": "<s>", "chat_template": TEMPLATE}
    return (folder / "whole.json").read_bytes(), json.dumps(config).encode()


@settings(max_examples=60)
@given(data=st.data())
def test_bytes_of_a_model_s_folder_changed(folder: Path, data: st.DataObject) -> None:
    tokens, config = model(folder)
    here = folder / "model"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    which = data.draw(st.sampled_from(("tokenizer", "config")))
    (here / "tokenizer.json").write_bytes(data.draw(mutated(tokens)) if which == "tokenizer" else tokens)
    (here / "tokenizer_config.json").write_bytes(data.draw(mutated(config)) if which == "config" else config)
    check(str(here), lambda: ChatTokenizer(here, {}))


@given(
    slots=st.integers(1, 10**6),
    per_slot=st.floats(0, 1e9, exclude_min=True),
    warmup=st.floats(0, 1e9),
    least=st.integers(1, 10**9),
)
def test_counts_of_what_a_sweep_file_may_say(slots: int, per_slot: float, warmup: float, least: int) -> None:
    rules = Measurement(requests_per_slot=per_slot, warmup_per_slot=warmup, min_requests=least)
    assert RequestCounts.of(slots, rules).total >= slots
    assert not Load().open


POINTS = b"""# measured
concurrency,prefill_layout,decode_layout,tput_per_gpu,interactivity,acceptance_rates
64,1xDEP8,2xDEP8,100.5,30,0.79/0.48/0.22
128,1xDEP8,1xTP8,200,20,
"""


@settings(max_examples=200)
@given(data=mutated(POINTS))
def test_bytes_of_measured_points_changed(folder: Path, data: bytes) -> None:
    path = folder / "points.csv"
    path.write_bytes(data)
    check(str(path), lambda: read_points(path))


@settings(max_examples=100)
@given(
    st.one_of(st.sampled_from(ODD), st.text(max_size=20), st.sampled_from(ODD).map('[{{"kind": {}}}]'.format))
)
def test_any_faults(text: str) -> None:
    check("fault", lambda: parse_faults(text))
