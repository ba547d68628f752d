"""The errors that may end a command, each with its exit code.

    MtpbenchError               exit 1   base of the tree; never raised itself
    ├── InputError              exit 2   the user's files or arguments are wrong
    │   ├── SweepError          exit 2   a sweep file, or one that it names: file, line, key
    │   ├── UnsupportedError    exit 2   an engine can't do what the sweep asks
    │   ├── ImportFileError     exit 2   a CSV or JSON brought from elsewhere
    │   ├── SchemaError         exit 2   results written by a schema this version can't read
    │   └── NotComparable       exit 2   two curves that differ in more than was declared
    ├── RunError                exit 3   a measurement failed; what was finished is kept
    │   ├── StartError          exit 3   a server died or never became ready
    │   └── PortInUse           exit 3   an address asked for by name is taken
    └── StoreError              exit 4   results/ could not be written or read

`HelperFailed` of `remote` is a RunError too. Exceptions that one module raises for its callers to catch stand
in that module (`Unread`, `BadResponse`, …); one that reaches the command line is an internal fault (exit 70).
Exit 3 is also the answer of a run that finished with invalid points.
"""

from __future__ import annotations

import re
from pathlib import Path

_ENDLESS_WORD = re.compile(r"(\S{300})\S{400,}(\S{300})")


class MtpbenchError(Exception):
    """The base of every error raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(MtpbenchError):
    """The user's files or arguments are wrong; the message says where, what, and what would be right.

    Of a word of 1,000 characters and more, which only a broken file holds, the message shows both ends.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(_ENDLESS_WORD.sub(r"\1…\2", message))


class SweepError(InputError):
    """A sweep file, or another file that a user wrote, can't be used.

    Args:
        message: what is wrong and what would be right.
        path: the file, where there is one.
        line: the 1-based line of the offending key or value.
        key: the dotted path of the key, such as `arms.mtp.draft_tokens`.
    """

    def __init__(
        self, message: str, *, path: Path | None = None, line: int | None = None, key: str | None = None
    ) -> None:
        where = str(path) if path is not None else "sweep"
        if line is not None:
            where += f":{line}"
        if key:
            where += f": {key}"
        super().__init__(f"{where}: {message}")
        self.problem, self.path, self.line, self.key = message, path, line, key


class UnsupportedError(InputError):
    """An engine can't do what the sweep asks of it (a topology, a draft count, a policy)."""


class ImportFileError(InputError):
    """A file brought from elsewhere (CSV, JSON) lacks something; names the file, row or column."""


class SchemaError(InputError):
    """Results were written under a schema version that this version can't read.

    Args:
        message: the whole, with what can be done.
        path: the file.
        reason: in a few words what is wrong with it, for a table.
    """

    def __init__(self, message: str, *, path: Path | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.path, self.reason = path, reason


class NotComparable(InputError):
    """Two curves differ in more than the declared fields; the message names the rest."""


class RunError(MtpbenchError):
    """A measurement failed; everything finished before it is kept."""

    exit_code = 3


class StartError(RunError):
    """A server died before it was ready, or was not ready in time; carries its last log lines.

    Args:
        message: what happened.
        process: the name of the process.
        log_tail: its last log lines.
    """

    def __init__(self, message: str, *, process: str, log_tail: str = "") -> None:
        text = f"{process}: {message}"
        if log_tail.strip():
            text += "\nlast log lines:\n" + "\n".join(
                f"  | {line}" for line in log_tail.rstrip().splitlines()
            )
        super().__init__(text)
        self.process, self.log_tail = process, log_tail


class PortInUse(RunError):
    """A port asked for by number is taken by another process."""


class StoreError(MtpbenchError):
    """results/ could not be written or read.

    Args:
        message: the whole, with what can be done.
        path: the file at fault, where it is one that can't be read.
        reason: in a few words what is wrong with it, for a table.
    """

    exit_code = 4

    def __init__(self, message: str, *, path: Path | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.path, self.reason = path, reason


INTERNAL_FAULT_EXIT_CODE = 70
