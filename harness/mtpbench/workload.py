"""Seeded requests of exact length. Lengths first (pure arrays), prompts on demand."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtpbench.errors import SweepError
from mtpbench.records import Workload
from mtpbench.requests import Ints

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
DEFAULT_VOCABULARY = 32_000
"""Token ids below this exist in every model of interest (DeepSeek's vocabulary has 129,280)."""
_LENGTH_STREAMS = (1, 2)
_PROMPT_STREAM = 3

WORDS = tuple(
    """
    about again always answer back before best black book bring call carry children close color could
    different door draw early enough every family fast feel find first five food found friend full gave
    give great ground grow hand head heard here hold horse house island keep king land last learn left
    life line little long made many mean mile moon morning mother move music name need next north
    nothing ocean once open other page part piece plan play power problem question rain ready rest river
    rock round sail school seem several ship should side since size slow snow song sound stand start
    stay still stop street study sure take teach test that then these think thought through together
    took town
    """.split()  # noqa: SIM905 - a list of words reads better as words
)
"""Plain words that common tokenizers mostly keep whole, for chat prompts made of words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lengths:
    """Token lengths of a run's requests by index: `prompt_tokens` and `output_tokens`, both (n,) int64."""

    prompt_tokens: Ints
    output_tokens: Ints


def draw_lengths(workload: Workload, count: int, seed: int) -> Lengths:
    """Lengths of `count` requests, uniform over the whole numbers in [range_ratio × L, L].

    The i-th request has the same lengths whatever `count` is, and in both arms of a sweep.
    """
    prompt_rng, output_rng = (np.random.default_rng([seed, stream]) for stream in _LENGTH_STREAMS)

    def draw(rng: np.random.Generator, longest: int) -> Ints:
        shortest = max(1, math.ceil(workload.range_ratio * longest))
        return rng.integers(shortest, longest, size=count, endpoint=True, dtype=np.int64)

    return Lengths(prompt_tokens=draw(prompt_rng, workload.isl), output_tokens=draw(output_rng, workload.osl))


class Prompts:
    """The requests of a run, rendered on demand; the same seed gives the same bytes in every arm.

    Random prompts without a chat template are lists of token ids, so their length is exact. With a chat
    template they are one user message of as many words as tokens are asked for: exact in words only
    (exactness in tokens needs the model's tokenizer). A dataset is read at once and used in file order,
    from the start again where it is shorter than the run, which `notes` then says.

    Args:
        workload: what is asked of the server.
        lengths: token lengths by request index; a dataset's own `output_tokens` win over them.
        seed: the point's seed.
        vocabulary: size of the model's vocabulary, or anything smaller; None for the workload's own, or the
            default. Ids are drawn from its middle three quarters, since special tokens sit at the ends.

    Raises:
        SweepError: the dataset can't be read, or a line of it is no request; names file and line.
    """

    def __init__(
        self, workload: Workload, lengths: Lengths, seed: int, vocabulary: int | None = None
    ) -> None:
        vocabulary = vocabulary or workload.vocabulary or DEFAULT_VOCABULARY
        if vocabulary < 8:
            raise SweepError(f"a vocabulary of {vocabulary} is too small to draw prompts from; at least 8")
        self._workload, self._seed = workload, seed
        self._lowest_id = vocabulary // 8
        ids = range(self._lowest_id, vocabulary - vocabulary // 8)
        width = len(str(ids[-1]))
        # Equal width (JSON allows blanks) makes a prompt one table look-up, tens of times faster than json.
        self._written_ids = np.array([f"{i:>{width}}," for i in ids], dtype=f"S{width + 1}")
        self.lengths = lengths
        self.notes: tuple[str, ...] = ()
        self._dataset: tuple[Mapping[str, Any], ...] = ()
        if workload.prompts == "dataset":
            self._dataset = read_dataset(workload)
            self._use_dataset(len(lengths.prompt_tokens))

    def __len__(self) -> int:
        return len(self.lengths.prompt_tokens)

    def body(self, index: int, model_name: str, continuous_usage: bool) -> tuple[str, bytes]:
        """The path and JSON body of request `index` (0-based), streaming with usage asked for."""
        options: dict[str, Any] = {
            "model": model_name,
            "max_tokens": int(self.lengths.output_tokens[index]),
            "temperature": self._workload.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if continuous_usage:
            options["stream_options"]["continuous_usage_stats"] = True
        if self._workload.ignore_eos:
            options["ignore_eos"] = True
        if self._workload.chat_template:
            return CHAT, _json({**options, "messages": self._messages(index)})
        if self._dataset:
            return COMPLETIONS, _json({**options, "prompt": self._line(index)["prompt"]})
        return COMPLETIONS, _json(options)[:-1] + b',"prompt":[' + self._token_ids(index) + b"]}"

    def _token_ids(self, index: int) -> bytes:
        count = int(self.lengths.prompt_tokens[index])
        chosen = self._rng(index).integers(0, len(self._written_ids), size=count)
        return self._written_ids[chosen].tobytes()[:-1]

    def _messages(self, index: int) -> list[Mapping[str, str]]:
        if self._dataset:
            line = self._line(index)
            return line.get("messages") or [{"role": "user", "content": line["prompt"]}]
        count = int(self.lengths.prompt_tokens[index])
        chosen = self._rng(index).integers(0, len(WORDS), size=count)
        return [{"role": "user", "content": " ".join([WORDS[i] for i in chosen])}]

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, _PROMPT_STREAM, index])

    def _line(self, index: int) -> Mapping[str, Any]:
        return self._dataset[index % len(self._dataset)]

    def _use_dataset(self, count: int) -> None:
        output_tokens = self.lengths.output_tokens.copy()
        for index in range(count):
            output_tokens[index] = self._line(index).get("output_tokens", output_tokens[index])
        self.lengths = dataclasses.replace(self.lengths, output_tokens=output_tokens)
        if len(self._dataset) < count:
            self.notes = (
                f"the dataset's {len(self._dataset)} lines were reused for {count} requests: "
                "prefix caches may have helped",
            )


def read_dataset(workload: Workload) -> tuple[Mapping[str, Any], ...]:
    """The requests of the workload's JSONL file: each has `prompt` or `messages`, maybe `output_tokens`.

    Raises:
        SweepError: the file can't be read, or a line of it is no request; names file and line.
    """
    if not workload.dataset_path:
        raise SweepError("prompts: dataset needs the path of a JSONL file", key="workload.dataset_path")
    path = Path(workload.dataset_path)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"the dataset can't be read: {error}", path=path) from error
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            rows.append(_parse_line(line, workload, path, number))
    if not rows:
        raise SweepError("the dataset is empty; one JSON object per line was expected", path=path)
    return tuple(rows)


def _parse_line(line: str, workload: Workload, path: Path, number: int) -> Mapping[str, Any]:
    def refuse(message: str) -> SweepError:
        return SweepError(message, path=path, line=number)

    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise refuse(f"not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(row, dict) or ("prompt" in row) == ("messages" in row):
        raise refuse('an object with either "prompt" or "messages" was expected')
    if "prompt" in row and (not isinstance(row["prompt"], str) or not row["prompt"]):
        raise refuse(f'"prompt" is a non-empty text, not {row["prompt"]!r}')
    if "messages" in row:
        if not workload.chat_template:
            raise refuse('"messages" need the chat template: set chat_template: true, or give "prompt"')
        if not _are_messages(row["messages"]):
            raise refuse('"messages" is a non-empty list of {"role": text, "content": text}')
    tokens = row.get("output_tokens", 1)
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise refuse(f'"output_tokens" is a whole number of at least 1, not {tokens!r}')
    return row


def _are_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) and "content" in m for m in value)
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
