"""The asker runs in an engine's own Python and asks that engine whether it would take command lines.

Nothing is served, and no weights are read. `asking` hands this file and `asked.py` to that Python as text
(`PYTHON -c TEXT PROGRAM`), since mtpbench need not be there: Python 3.10 or newer, the standard library and
the engine only. Questions come on standard input, to its end, as JSON lines:

    {"number": 0, "words": [after the program's name], "environment": {}, "files": [{"path", "text"}],
     "directory": "what stands for a folder in all of these", "on_cpu": false}

Answers are JSON lines on standard output; other lines there are an engine's or a site's, and mean nothing:

    {"asker": "ready", "versions": {"vllm": "0.33.0"}}      or  {"asker": "not_asked", "reason": "…"}
    {"asker": "answer", "number": 0, "stages": ["parser", …], "left_out": {"config": "why"},
     "findings": [{"kind", "stage", "message", "option"}], "ports": {"what the engine itself opens": 20001},
     "facts": null, or what the nodes of a data-parallel vLLM worker must agree on:
              {"balances_itself": false, "headless": false}}
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import io
import json
import logging
import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

LONGEST = 600
"""Characters of a message."""
_DEPRECATED = re.compile(r"deprecat|obsolete|will be removed", re.IGNORECASE)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Refusal(SystemExit):
    """A parser refuses a command line, where it would end the process."""


class Enough(BaseException):
    """The engine has come as far as this machine allows."""


class Stopped(BaseException):
    """The engine has refused the line: nothing is left to ask."""


class Line:
    """A line is one question, and what was found out about it.

    Args:
        question: as it was read.
        directory: the folder that its files go to.
    """

    now: Line
    """The line that the engine is asked about now."""

    def __init__(self, question: Mapping[str, Any], directory: str) -> None:
        filled = json.loads(json.dumps(question).replace(question["directory"], directory))
        self.words: list[str] = filled["words"]
        self.environment: dict[str, str] = filled["environment"]
        self.on_cpu: bool = filled["on_cpu"]
        self.stage = "parser"
        self.stages: list[str] = []
        self.findings: list[dict[str, str | None]] = []
        self.left_out: dict[str, str] = {}
        self.ports: dict[str, int] = {}
        self.facts: dict[str, bool] | None = None
        self.marked: dict[str, str] = {}
        self.messages: dict[str, str] = {}
        for file in filled["files"]:
            with open(file["path"], "w", encoding="utf-8") as text:
                text.write(file["text"])

    def find(self, kind: str, message: str, option: str | None = None) -> None:
        """Keeps what the engine says of the line."""
        text = _COLOURS.sub("", message).strip()[:LONGEST]
        found = {"kind": kind, "stage": self.stage, "message": text, "option": option}
        if found not in self.findings:
            self.findings.append(found)

    def run(self, stage: str, act: Callable[[], Any]) -> Any:
        """Returns what the engine makes of the line in one stage.

        Raises:
            Stopped: it refuses; the finding is kept.
        """
        self.stage = stage
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors):
                made = act()
                if inspect.isawaitable(made):
                    made = asyncio.run(_coroutine(made))
        except Refusal as refusal:
            self.find("refused", str(refusal.code))
        except SystemExit as end:
            said = [*errors.getvalue().strip().splitlines(), *self.messages]
            self.find("refused", said[-1] if said else f"exit code {end.code}")
        except Exception as error:  # noqa: BLE001 - whatever an engine raises is its refusal
            kind = "refused" if stage == "parser" else "config_refused"
            self.find(kind, f"{type(error).__name__}: {error}{_place_of(error)}")
        else:
            self.stages.append(stage)
            return made
        raise Stopped

    def hear(self, message: str) -> None:
        """Keeps a warning of the engine's, with the stage in which it came first."""
        self.messages.setdefault(message, self.stage)

    def lacks(self, stage: str, reason: str | None) -> bool:
        """Returns whether there is a reason not to go on to a stage, and keeps it."""
        if reason is not None:
            self.left_out[stage] = reason
        return reason is not None


async def _coroutine(made: Any) -> Any:
    return await made


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    return f" ({frames[-1].filename.split('site-packages/')[-1]}:{frames[-1].lineno})"


# --- what argparse tolerates, and what engines say of it ---


def watch_parsers() -> None:
    """Makes every argparse parser tell what it takes by a prefix, leaves over, or calls deprecated."""
    parser: Any = argparse.ArgumentParser
    matching, known = parser._get_option_tuples, parser.parse_known_args

    def get_option_tuples(self: Any, text: str) -> Any:
        found = matching(self, text)
        if len(found) == 1 and text.startswith("--"):
            option = text.partition("=")[0]
            Line.now.find("by_prefix", f"{option} is no option, but the beginning of {found[0][1]}", option)
        return found

    def parse_known_args(self: Any, args: Any = None, namespace: Any = None) -> Any:
        _mark_deprecated(self, sys.argv[1:] if args is None else args)
        return known(self, args, namespace)

    def parse_args(self: Any, args: Any = None, namespace: Any = None) -> Any:
        made, left = self.parse_known_args(args, namespace)
        _find_left_over(left)
        return made

    def error(self: Any, message: str) -> Any:
        raise Refusal(message)

    parser._get_option_tuples, parser.parse_known_args = get_option_tuples, parse_known_args
    parser.parse_args, parser.error = parse_args, error


def _find_left_over(words: Iterable[str]) -> None:
    left = list(words)
    options = [word for word in left if word.startswith("-")]
    for option in options:
        Line.now.find("unknown_option", f"unrecognized arguments: {option}", option)
    if left and not options:
        Line.now.find("refused", f"unrecognized arguments: {' '.join(left)}")


def _mark_deprecated(parser: Any, words: Iterable[str]) -> None:
    """Keeps the options that a parser marks as deprecated, of those that the line has."""
    for option in {word.partition("=")[0] for word in words if word.startswith("-")}:
        action = parser._option_string_actions.get(option)
        if action is not None and _is_deprecated(parser, action, option):
            Line.now.marked[option] = f"{option} is deprecated: {action.help}"


def _is_deprecated(parser: Any, action: Any, option: str) -> bool:
    """Returns whether a parser marks an option, or this spelling of it, as deprecated."""
    if getattr(action, "deprecated", False) or type(action).__name__.startswith("Deprecated"):
        return True
    text = action.help if isinstance(action.help, str) else ""
    spelling = re.search(rf"deprecat\w*[^.\n]*{re.escape(option)}(?![\w-])", text, re.IGNORECASE)
    return spelling is not None or action in getattr(parser, "_deprecated", ())


@contextlib.contextmanager
def _listening(line: Line) -> Any:
    """Keeps the warnings and log lines of an engine while it is asked about a line."""
    handle: Any = logging.Logger.callHandlers

    def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            line.hear(record.getMessage())
        handle(logger, record)

    def show(message: Warning | str, *_where: Any) -> None:
        line.hear(str(message))

    logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign, assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show  # type: ignore[assignment]
            yield
    finally:
        logging.Logger.callHandlers = handle  # type: ignore[method-assign]


def _find_deprecations(line: Line) -> None:
    """Keeps each deprecation that names something of the line; a parser's own mark where nothing was said."""
    names = {word.partition("=")[0].lstrip("-"): word for word in line.words if word.startswith("--")}
    keys = {key for word in line.words if word[:1] in "{[" for key in re.findall(r'"(\w+)"', word)}
    names.update({name: name for name in (*keys, *line.environment)})
    for message, stage in line.messages.items():
        line.stage = stage
        for name, option in names.items():
            if _DEPRECATED.search(message) and _means(message, name):
                line.find("deprecated", message, option)
                line.marked.pop(option, None)
    line.stage = "parser"
    for option, text in line.marked.items():
        line.find("deprecated", text, option)


def _means(message: str, name: str) -> bool:
    """Returns whether a message means a name, and not a word of its own that is the same."""
    form = "[-_]".join(map(re.escape, re.split("[-_]", name)))
    start = rf"(?<![\w-])(?:--)?{form}" if re.search("[-_]", name) else rf"(?:--|['\"`]){form}"
    return re.search(rf"{start}(?![\w-])", message) is not None


# --- questions and answers ---

Ask = Callable[[Line], None]
Engine = Callable[[], "tuple[dict[str, str], Ask]"]
"""Makes an engine ready: the versions of its packages, and what asks it about a line."""


def _answer(ask: Ask, question: Mapping[str, Any], directory: str) -> dict[str, Any]:
    """Returns the engine's answer to one question; its environment is that of the line meanwhile."""
    Line.now = line = Line(question, directory)
    before = dict(os.environ)
    os.environ.update(line.environment)
    try:
        with _listening(line), contextlib.suppress(Stopped):
            ask(line)
    finally:
        os.environ.clear()
        os.environ.update(before)
    _find_deprecations(line)
    fields = ("stages", "findings", "left_out", "ports", "facts")
    return {"asker": "answer", "number": question["number"], **{name: getattr(line, name) for name in fields}}


def _die_with_parent() -> None:
    """Lets the kernel end this process with the one that started it, which may be killed; on Linux only.

    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class _Ended(BaseException):
    """The asker is to end: what it wrote goes, and no engine takes this for a refusal of its own."""


def _end(*_: object) -> None:
    raise _Ended


def main(engines: Mapping[str, Engine]) -> None:
    """Reads all questions, makes the engine ready, and answers one after the other."""
    _die_with_parent()
    signal.signal(signal.SIGTERM, _end)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what an engine prints is no answer

    def tell(message: Mapping[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    questions = [json.loads(text) for text in sys.stdin]
    watch_parsers()
    try:
        versions, ask = engines[sys.argv[1]]()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an engine that can't be loaded, for whatever reason
        reason = f"{type(error).__name__}: {error}{_place_of(error)}"
        tell({"asker": "not_asked", "reason": reason[:LONGEST]})
        return
    tell({"asker": "ready", "versions": versions})
    with tempfile.TemporaryDirectory(prefix="mtpbench-parsers-") as directory:
        tempfile.tempdir = directory
        for question in questions:
            tell(_answer(ask, question, directory))
