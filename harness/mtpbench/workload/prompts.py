"""The requests of a run: their timing by a dataset, and their bodies as buffers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mtpbench.errors import SweepError, UnsupportedError
from mtpbench.metrics.request_table import UNKNOWN, Floats, Ints
from mtpbench.records import Workload
from mtpbench.workload.content import WORDS, Piece, RandomContent, token_alphabet, word_alphabet
from mtpbench.workload.dataset import Dataset, read_dataset
from mtpbench.workload.lengths import Lengths, shortest_of, spread_phases
from mtpbench.workload.tokenizer import ChatTokenizer, load_tokenizer


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptTiming:
    """The timing of prompts by request index; `Prompts` explains its fields."""

    arrivals_s: Floats | None
    after: Ints
    delay_s: Floats
    notes: tuple[str, ...] = ()


def untimed(count: int) -> PromptTiming:
    """Returns the timing of requests that wait for nothing."""
    return PromptTiming(arrivals_s=None, after=np.full(count, -1, np.int64), delay_s=np.zeros(count))


def time_rows(dataset: Dataset, count: int) -> PromptTiming:
    """Computes the timing of `count` requests, the i-th of which is row i mod n.

    Each pass through the dataset starts new sessions.

    Raises:
        SweepError: a trace is shorter than the run and its timestamps are all equal.
    """
    rows, index = len(dataset), np.arange(count, dtype=np.int64)
    passes, row = index // rows, index % rows
    previous = dataset.previous[row]
    after = np.where(previous < 0, -1, previous + passes * rows)
    if rows >= count:
        arrivals_s = None if dataset.times_s is None else dataset.times_s[:count]
        return PromptTiming(arrivals_s=arrivals_s, after=after, delay_s=dataset.delay_s[row])
    notes = [
        f"the dataset's {rows} lines were reused for {count} requests: prefix caches may have helped"
        + (", and a session that came again counts as a new one" if (dataset.previous >= 0).any() else "")
    ]
    arrivals_s = None
    if dataset.times_s is not None:
        last_s = float(dataset.times_s[-1])
        if last_s == 0:
            raise dataset.error(
                rows - 1,
                f"{count} requests are wanted and the trace has {rows}, all at the same time, so it has no "
                "interval to go on with; give it as many lines, or timestamps that rise",
            )
        interval_s = last_s / (rows - 1)
        arrivals_s = dataset.times_s[row] + passes * (last_s + interval_s)
        notes.append(
            f"the trace was repeated after its end at {last_s:g} s, each time after its mean interval of "
            f"{interval_s:.3g} s"
        )
    return PromptTiming(arrivals_s=arrivals_s, after=after, delay_s=dataset.delay_s[row], notes=tuple(notes))


_MOST_RPS, _MOST_FRACTIONS_RPS = 200, 50
"""Requests/s beyond which a trace is more likely one in seconds; whole milliseconds are usual."""
_LONGEST_GAP_S = 3600
"""Mean gap between requests beyond which it is more likely one in microseconds or nanoseconds."""


def _check_unit(dataset: Dataset) -> None:
    """Refuses timestamps that make a load which no trace has, unless their key names the unit.

    Raises:
        SweepError: they are more likely in another unit than milliseconds.
    """
    times_s = np.unique(dataset.times_s if dataset.times_s is not None else np.zeros(1))
    if len(times_s) < 3:
        return
    gap_s = float(times_s[-1] - times_s[0]) / (len(times_s) - 1)
    fractions = bool((np.abs(times_s * 1000 - np.round(times_s * 1000)) > 1e-6).any())
    if 1 / (_MOST_FRACTIONS_RPS if fractions else _MOST_RPS) <= gap_s <= _LONGEST_GAP_S:
        return
    load = f"{1 / gap_s:.4g} requests/s" if gap_s < 1 else f"a request every {gap_s:.4g} s"
    raise SweepError(
        f'"timestamp" is in milliseconds, and would make {load} on average; if it is in seconds, name it '
        '"timestamp_s", and if that is what is meant, "timestamp_ms"',
        path=dataset.path,
    )


_LINES_TO_TELL = 1000


def refuse_token_ids(workload: Workload) -> None:
    """Refuses prompts that are lists of token ids, for a router that takes texts only.

    Random ones are, without a chat template. Of a dataset the first lines tell.

    Raises:
        UnsupportedError: there are such prompts.
        SweepError: the dataset can't be read.
    """
    if workload.chat_template:
        return
    if workload.prompts == "dataset":
        payloads = read_dataset(workload, _LINES_TO_TELL).payloads
        if not any(payload is None or b'"prompt":[' in payload for payload in payloads):
            return
    raise UnsupportedError(
        "SGLang's routers take no token ids as a prompt, and this workload sends them; set "
        "`workload.chat_template: true` (with `workload.tokenizer` for exact lengths), use a dataset of "
        "texts, or `engine.router: dynamo`"
    )


COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
_CLOSING = b"}"
_SHORT_TOKENS = 20_000
"""The tokenizer counts prompts up to this length in milliseconds."""


class Prompts:
    """The prompts of a run; request i has the same bytes in every arm and for every number of requests.

    Random prompts without a chat template are lists of token ids, so their length is exact. With a template
    they are one user message of words: exact in tokens with the model's tokenizer, else exact in words only.
    A dataset is used in file order; if it is shorter than the run it is used again, and `notes` says so.

    Args:
        workload: the workload of the point.
        lengths: token lengths by request index; lengths that a dataset gives replace them.
        seed: the point's seed.
        model_name: the name that requests use.
        continuous_usage: whether requests ask for the token count in every event.

    Attributes:
        path: the URL path that the requests are posted to. lengths: the requested lengths. The prompt tokens
        of a dataset's texts are those passed in, an estimate,
            unless the tokenizer counts them.
        notes: remarks for readers of the results.
        exact: whether `lengths.prompt_tokens` are the server's tokens, and no estimate.
        arrivals_s: (n,) seconds from the first request by a dataset's timestamps, never falling, or None. A
            later turn without a timestamp has that of the line before it.
        after: (n,) the request that must end before this one may start (the turn before); -1 for none.
        delay_s: (n,) pause after that end.
        categories: (n,) the kinds of text that a dataset's lines name, or None; None where no line does.

    Raises:
        SweepError: the dataset, one of its lines, the tokenizer or a length can't be used.
    """

    path: str
    lengths: Lengths
    notes: tuple[str, ...]
    exact: bool
    arrivals_s: Floats | None
    after: Ints
    delay_s: Floats
    categories: npt.NDArray[np.object_] | None

    def __init__(
        self, workload: Workload, lengths: Lengths, seed: int, *, model_name: str, continuous_usage: bool
    ) -> None:
        count = len(lengths.prompt_tokens)
        self._workload = workload
        self._front = _front(workload, model_name, continuous_usage)
        self.path = CHAT if workload.chat_template else COMPLETIONS
        self._tokenizer = _tokenizer(workload)
        self._dataset = read_dataset(workload, count) if workload.prompts == "dataset" else None
        timing = untimed(count) if self._dataset is None else time_rows(self._dataset, count)
        self.arrivals_s, self.after, self.delay_s = timing.arrivals_s, timing.after, timing.delay_s
        self.notes = timing.notes
        self.categories = None if self._dataset is None else self._dataset.categories_of(count)
        self.lengths = lengths if self._dataset is None else self._dataset_lengths(self._dataset, lengths)
        texts = self._dataset is not None and bool((self._dataset.prompt_tokens[:count] == UNKNOWN).any())
        self.exact = self._tokenizer is not None or not (workload.chat_template or texts)
        self._content = self._make_content(seed)
        if self._tokenizer is not None:
            self._check_counts(self._tokenizer)

    def __len__(self) -> int:
        return len(self.lengths.prompt_tokens)

    def pieces(self, index: int) -> tuple[Piece, ...]:
        """Returns the JSON body of request `index` (0-based) in at most 1000 buffers, in order."""
        front = b"%s%d," % (self._front, self.lengths.output_tokens[index])
        row, numbers = index, None
        if self._dataset is not None:
            row = index % len(self._dataset)
            if (payload := self._dataset.payloads[row]) is not None:
                return front, payload, _CLOSING
            numbers = self._dataset.blocks_of(row)
        return _joined([front, *self._random(index, numbers), _CLOSING])

    def spread_phases(self, firsts: Ints, seed: int) -> None:
        """Shortens the answers of the slots' first requests; see the function of that name."""
        self.lengths = spread_phases(self.lengths, firsts, seed)

    def body(self, index: int) -> bytes:
        """Returns the JSON body of request `index` in one buffer."""
        return b"".join(self.pieces(index))

    def trace_arrivals_s(self) -> Floats:
        """Returns `arrivals_s` of a dataset that must have timestamps.

        Raises:
            SweepError: the dataset has none, or they can hardly be in milliseconds.
        """
        dataset = self._dataset
        if self.arrivals_s is None or dataset is None:
            path = None if dataset is None else dataset.path
            raise SweepError('`pacing: trace` needs a "timestamp" (ms) in every line', path=path)
        if not dataset.unit_named:
            _check_unit(dataset)
        return self.arrivals_s

    def _random(self, index: int, blocks: Ints | None) -> list[Piece]:
        assert self._content is not None
        tokens = int(self.lengths.prompt_tokens[index])
        symbols = tokens - self._overhead
        if blocks is not None and len(blocks):
            return self._content.blocks(blocks.tolist(), symbols)
        opening = 0 if self._tokenizer is None else self._tokenizer.opening
        shared = round(self._workload.prefix_share * tokens) - opening
        return self._content.prompt(index, symbols, min(max(shared, 0), symbols))

    @property
    def _overhead(self) -> int:
        return 0 if self._tokenizer is None else self._tokenizer.overhead

    def _dataset_lengths(self, dataset: Dataset, drawn: Lengths) -> Lengths:
        row = np.arange(len(drawn.prompt_tokens)) % len(dataset)
        prompt_tokens = dataset.prompt_tokens.copy()
        if self._tokenizer is not None:
            for i, payload in enumerate(dataset.payloads):
                if payload is not None:
                    prompt_tokens[i] = _count(dataset, i, payload, self._tokenizer)

        def choose(own: Ints, other: Ints) -> Ints:
            return np.where(own == UNKNOWN, other, own)

        return Lengths(
            prompt_tokens=choose(prompt_tokens[row], drawn.prompt_tokens),
            output_tokens=choose(dataset.output_tokens[row], drawn.output_tokens),
        )

    def _make_content(self, seed: int) -> RandomContent | None:
        """Builds the content of random prompts; None if there are none.

        Its size does not depend on the number of requests, so that a request has the same bytes in every run.
        """
        dataset, blocks = self._dataset, 0
        if dataset is None:
            tokens = self.lengths.prompt_tokens
            longest = max(self._workload.isl, int(tokens.max(initial=0)))
            shortest = min(shortest_of(self._workload, self._workload.isl), int(tokens.min(initial=longest)))
            self._refuse_short(shortest)
        elif dataset.longest_trace:
            longest, blocks = dataset.longest_trace, dataset.distinct_blocks
            for row, payload in enumerate(dataset.payloads):
                if payload is None:
                    self._refuse_short(int(dataset.prompt_tokens[row]), row)
        else:
            return None
        if not self._workload.chat_template:
            alphabet = token_alphabet(self._workload.vocabulary)
        else:
            alphabet = word_alphabet(WORDS if self._tokenizer is None else self._tokenizer.words)
        return RandomContent(alphabet, longest, seed, blocks)

    def _refuse_short(self, tokens: int, row: int | None = None) -> None:
        if tokens > self._overhead:
            return
        message = (
            f"a prompt of {tokens} tokens is too short for the chat template, which takes {self._overhead} "
            f"and one for a word: at least {self._overhead + 1} were expected"
        )
        if self._dataset is not None and row is not None:
            raise self._dataset.error(row, message)
        raise SweepError(message, key="workload.isl")

    def _check_counts(self, tokenizer: ChatTokenizer) -> None:
        """Checks the length of the shortest, the longest and some other random prompts with the tokenizer."""
        rows = np.arange(len(self)) if self._dataset is None else self._dataset.traced(len(self))
        if not len(rows):
            return
        tokens = self.lengths.prompt_tokens
        indices = {int(rows[tokens[rows].argmin()]), int(rows[tokens[rows].argmax()])}
        if tokens[rows].max() <= _SHORT_TOKENS:
            indices |= {int(rows[0]), int(rows[len(rows) // 2]), int(rows[-1])}
        for index in sorted(indices):
            (message,) = orjson.loads(self.body(index))["messages"]
            counted = tokenizer.count_prompt(message["content"])
            if counted != tokens[index]:
                raise SweepError(
                    f"request {index} was to have {tokens[index]} tokens and has {counted} by the tokenizer: "
                    "its words are not one token each everywhere; leave `tokenizer` out for prompts that are "
                    "exact in words",
                    key="workload.tokenizer",
                )


HARNESS_KEYS: Mapping[str, str] = {
    "model": "`model.served_name` sets it",
    **dict.fromkeys(("prompt", "messages"), "`workload.prompts` and `workload.dataset` set it"),
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), "`workload.osl` sets it"),
    "temperature": "`workload.temperature` sets it",
    "ignore_eos": "`workload.ignore_eos` sets it",
    "chat_template_kwargs": "`workload.chat_template_kwargs` sets it",
    "stream": "every answer is streamed",
    "stream_options": "`measurement.continuous_usage` sets it",
    **dict.fromkeys(("n", "best_of"), "every request asks for one answer"),
    "echo": "an answer holds no prompt",
}
"""Keys of a request's body that are not the user's, and what sets each."""


def check_extra_body(keys: Iterable[str]) -> None:
    """Checks further keys of every request's body.

    Raises:
        ValueError: the harness sets one itself.
    """
    for key in keys:
        if key in HARNESS_KEYS:
            raise ValueError(f"`{key}` is not for extra keys: {HARNESS_KEYS[key]}")


def _front(workload: Workload, model_name: str, continuous_usage: bool) -> bytes:
    """Returns the beginning of every body, up to the number of output tokens."""
    options: dict[str, Any] = {
        **workload.extra_body,
        "model": model_name,
        "temperature": workload.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if continuous_usage:
        options["stream_options"]["continuous_usage_stats"] = True
    if workload.ignore_eos:
        options["ignore_eos"] = True
    if workload.chat_template_kwargs:
        options["chat_template_kwargs"] = workload.chat_template_kwargs
    return orjson.dumps(options)[:-1] + b',"max_tokens":'


def _tokenizer(workload: Workload) -> ChatTokenizer | None:
    if workload.tokenizer is None or not workload.chat_template:
        return None
    return load_tokenizer(workload.tokenizer, json.dumps(workload.chat_template_kwargs, sort_keys=True))


def _count(dataset: Dataset, row: int, payload: bytes, tokenizer: ChatTokenizer) -> int:
    try:
        return tokenizer.count(orjson.loads(b"{%s}" % payload)["messages"])
    except SweepError as error:
        raise dataset.error(row, str(error)) from error


def _joined(parts: Iterable[Piece]) -> tuple[Piece, ...]:
    """Returns the same bytes in fewer buffers: it joins neighbours that were written for this request."""
    joined: list[Piece] = []
    for part in parts:
        if joined and isinstance(part, bytes) and isinstance(joined[-1], bytes):
            joined[-1] += part
        else:
            joined.append(part)
    return tuple(joined)
