"""The dataset: a JSONL file as columns, read once in file order, each line checked."""

from __future__ import annotations

import reprlib
from array import array
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtpbench.errors import SweepError
from mtpbench.input_files import read_lines
from mtpbench.metrics.request_table import UNKNOWN, Floats, Ints
from mtpbench.records import MOST_CATEGORIES, Workload
from mtpbench.workload.dataset_lines import LONGEST_MS, DatasetLine, parse_line


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A dataset holds the rows of a file, one for each line that is not blank.

    Args:
        path: the file.
        line_numbers: (n,) 1-based.
        payloads: the prompts as members of a request's JSON, of the first rows only; None for trace rows.
        prompt_tokens, output_tokens: (n,) `UNKNOWN` if the line does not give them.
        times_s: (n,) seconds from the first row, never falling; None if lines have no timestamps.
        unit_named: whether the keys of all timestamps name their unit.
        previous: (n,) the row of the session's turn before; -1 for none.
        delay_s: (n,) pause after the end of that turn.
        block_offsets: (n + 1,) blocks of row i are [block_offsets[i], block_offsets[i + 1]) of `blocks`.
        blocks: hash ids, numbered from 0 in the order in which they first appear.
        distinct_blocks: how many different blocks there are.
        longest_trace: tokens of the longest trace row; 0 if there is none.
        categories: the kinds of text, in the order in which they first appear.
        category: (n,) the position of each row's kind among them, `UNKNOWN` for none.
    """

    path: Path
    line_numbers: Ints
    payloads: tuple[bytes | None, ...]
    prompt_tokens: Ints
    output_tokens: Ints
    times_s: Floats | None
    unit_named: bool
    previous: Ints
    delay_s: Floats
    block_offsets: Ints
    blocks: Ints
    distinct_blocks: int
    longest_trace: int
    categories: tuple[str, ...]
    category: Ints

    def __len__(self) -> int:
        return len(self.line_numbers)

    def blocks_of(self, row: int) -> Ints:
        """Returns the numbers of a row's blocks; empty if it has none."""
        return self.blocks[self.block_offsets[row] : self.block_offsets[row + 1]]

    def categories_of(self, count: int) -> npt.NDArray[np.object_] | None:
        """Returns the kinds of text of `count` requests, or None where no line names one."""
        if not self.categories:
            return None
        names = np.array([*self.categories, None], object)
        # The position of no kind, -1, is that of None.
        return names[self.category[np.arange(count) % len(self)]]

    def traced(self, count: int) -> Ints:
        """Returns which of the first `count` rows are trace rows."""
        return np.array([row for row, text in enumerate(self.payloads[:count]) if text is None], np.int64)

    def error(self, row: int, message: str) -> SweepError:
        """Returns an error about the line of a row."""
        return SweepError(message, path=self.path, line=int(self.line_numbers[row]))


def read_dataset(workload: Workload, count: int) -> Dataset:
    """Reads the workload's JSONL file; of rows after the first `count` only the numbers are kept.

    Raises:
        SweepError: the file can't be read, or a line is no request; the error names file and line.
    """
    path = _path(workload)
    reader = _Reader(path, count)
    for number, raw in read_lines(path):
        try:
            line = parse_line(raw, chat=workload.chat_template, vocabulary=workload.vocabulary)
            reader.add(number, line)
        except ValueError as error:
            raise SweepError(str(error), path=path, line=number) from error
    return reader.dataset()


def count_lines(workload: Workload) -> int:
    """Counts the requests of the workload's JSONL file without parsing them.

    Raises:
        SweepError: the file can't be read, or it is empty.
    """
    path = _path(workload)
    return sum(1 for _ in read_lines(path)) or _refuse_empty(path)


def _path(workload: Workload) -> Path:
    if not workload.dataset_path:
        raise SweepError("prompts: dataset needs the path of a JSONL file", key="workload.dataset")
    if workload.demonstrates:
        return Path(str(resources.files("mtpbench"))) / "data" / "demonstration_prompts.jsonl"
    return Path(workload.dataset_path)


def _refuse_empty(path: Path) -> int:
    raise SweepError("the dataset is empty; one JSON object per line was expected", path=path)


class _Reader:
    """The reader collects the columns and checks each line against those before it."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count
        self._payloads: list[bytes | None] = []
        self._numbers, self._prompt_tokens, self._output_tokens, self._previous, self._blocks = (
            array("q") for _ in range(5)
        )
        self._offsets = array("q", [0])
        self._times_ms, self._delays_ms = array("d"), array("d")
        self._timed: bool | None = None
        self._unit_named = True
        self._longest_trace = 0
        self._last_turns: dict[str | int, int] = {}
        self._block_numbers: dict[int, int] = {}
        self._categories: dict[str, int] = {}
        self._category = array("q")

    def add(self, number: int, line: DatasetLine) -> None:
        """Adds a line.

        Raises:
            ValueError: the line does not fit the lines before it.
        """
        row = len(self._numbers)
        previous = -1 if line.session is None else self._last_turns.get(line.session, -1)
        self._check_time(line, previous)
        if previous < 0 and line.delay_ms:
            raise ValueError(
                f'"delay" counts from the end of the turn before, and this is the first turn of '
                f'{reprlib.repr(line.session)}: leave it out (a "timestamp" says when a session starts)'
            )
        self._category.append(self._number_of(line.category))
        if line.session is not None:
            self._last_turns[line.session] = row
        self._numbers.append(number)
        if row < self._count:
            self._payloads.append(line.payload)
        self._prompt_tokens.append(UNKNOWN if line.prompt_tokens is None else line.prompt_tokens)
        self._output_tokens.append(UNKNOWN if line.output_tokens is None else line.output_tokens)
        if line.payload is None:
            self._longest_trace = max(self._longest_trace, line.prompt_tokens or 0)
        self._previous.append(previous)
        self._delays_ms.append(line.delay_ms)
        numbers = self._block_numbers
        self._blocks.extend(numbers.setdefault(block, len(numbers)) for block in line.hash_ids)
        self._offsets.append(len(self._blocks))

    def dataset(self) -> Dataset:
        """Builds the dataset of the lines so far.

        Raises:
            SweepError: there are no lines.
        """
        if not self._numbers:
            _refuse_empty(self._path)
        times_ms = np.array(self._times_ms)
        return Dataset(
            path=self._path,
            line_numbers=np.array(self._numbers, np.int64),
            payloads=tuple(self._payloads),
            prompt_tokens=np.array(self._prompt_tokens, np.int64),
            output_tokens=np.array(self._output_tokens, np.int64),
            unit_named=self._unit_named,
            times_s=(times_ms - times_ms[0]) / 1000 if self._timed else None,
            previous=np.array(self._previous, np.int64),
            delay_s=np.array(self._delays_ms) / 1000,
            block_offsets=np.array(self._offsets, np.int64),
            blocks=np.array(self._blocks, np.int64),
            distinct_blocks=len(self._block_numbers),
            longest_trace=self._longest_trace,
            categories=tuple(self._categories),
            category=np.array(self._category, np.int64),
        )

    def _number_of(self, category: str | None) -> int:
        if category is None:
            return UNKNOWN
        number = self._categories.setdefault(category, len(self._categories))
        if number >= MOST_CATEGORIES:
            raise ValueError(
                f'"category" {category!r} is one more than the {MOST_CATEGORIES} that a table has rows for: '
                "name kinds of text, not single prompts"
            )
        return number

    def _check_time(self, line: DatasetLine, previous: int) -> None:
        """Checks that all lines have timestamps, or none; a later turn of a session may do without."""
        time_ms = line.timestamp_ms
        if self._timed is None:
            self._timed = time_ms is not None
        if time_ms is None:
            if self._timed and previous < 0:
                raise ValueError(
                    'this line has no "timestamp" and those before have: give all lines one, or none '
                    "(only a later turn of a session may do without)"
                )
            time_ms = self._times_ms[-1] if self._times_ms else 0.0
        elif not self._timed:
            raise ValueError(
                'this line has a "timestamp" and the first one has none: give all lines one, or none'
            )
        if self._times_ms and time_ms < self._times_ms[-1]:
            raise ValueError(
                f"the timestamps go backwards, from {self._times_ms[-1]:g} to {time_ms:g} ms: "
                "sort the lines by time"
            )
        if self._times_ms and time_ms - self._times_ms[0] > LONGEST_MS:
            raise ValueError(f"the trace takes {time_ms - self._times_ms[0]:g} ms so far: years")
        self._times_ms.append(time_ms)
        self._unit_named &= line.unit_named
