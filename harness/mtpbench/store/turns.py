"""Turns: a lock for processes on any hosts, made of files, since the kernel's locks reach no other host."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from mtpbench.errors import RunError, StoreError
from mtpbench.store.files import (
    claim_file,
    create_file,
    is_alive,
    is_there,
    latest_number,
    own_mark,
    read_bytes,
)

SILENT_S = 120.0
"""Seconds without a sign of life after which a turn of another machine counts as ended."""
BEAT_S = 15.0
LOOK_S = 0.3
TURN_PATIENCE_S = 900.0
_TURN = re.compile(r"(\d{5,9})\.(json|done)")


class Turn:
    """A turn is a lock that one process has, on whatever host: the kernel's reach no other one's.

    Turn n + 1 is a file that only one writer can make. It may be taken once turn n has ended: its process
    wrote so, is dead, or was silent for `SILENT_S`. A process that loses its turn while it is frozen finds
    the next one, and goes no further.

    Args:
        folder: of the turns' files.
        doing: what is done in a turn, as the end of a sentence about the process that has it.
        on_wait: is told in a sentence, once, whom it waits for.
        patience_s: how long it waits.
    """

    def __init__(
        self, folder: Path, doing: str, on_wait: Callable[[str], None], patience_s: float = TURN_PATIENCE_S
    ) -> None:
        self._folder, self._doing, self._on_wait, self._patience_s = folder, doing, on_wait, patience_s
        self._over = threading.Event()
        self.number = 0

    def __enter__(self) -> Self:
        deadline, said = time.monotonic() + self._patience_s, ""
        while not self._take():
            if not said:
                said = f"{self._who(latest_number(self._folder, _TURN))} {self._doing}"
                self._on_wait(f"{said}; waiting for its end")
            if time.monotonic() > deadline:
                raise RunError(f"{said}: no end in {self._patience_s:.0f} s; wait for it or stop it")
            time.sleep(LOOK_S)
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with suppress(StoreError):
            claim_file(self._path("done"), "")
        with suppress(OSError):  # another user's, in a folder where each removes only what is his
            for path in self._folder.glob("*"):
                if (match := _TURN.fullmatch(path.name)) and int(match[1]) < self.number:
                    path.unlink(missing_ok=True)

    def check(self) -> None:
        """Checks that this process still has the turn.

        Raises:
            RunError: another one has taken over.
        """
        if latest_number(self._folder, _TURN) != self.number:
            raise RunError(f"this process was silent for too long: another one {self._doing} now")

    def _take(self) -> bool:
        latest = latest_number(self._folder, _TURN)
        if latest and not self._has_ended(latest):
            return False
        self.number = latest + 1
        time_utc = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"host": socket.gethostname(), "time_utc": time_utc, **_process(os.getpid())}
        return claim_file(self._path("json"), json.dumps(holder))

    def _path(self, kind: str, number: int | None = None) -> Path:
        return self._folder / f"{number or self.number:05d}.{kind}"

    def _has_ended(self, number: int) -> bool:
        """Returns whether a turn is over; the file's age tells it where its process is out of sight."""
        if is_there(self._path("done", number)):
            return True
        holder = self._holder(number)
        seen = _process(holder.get("pid", 0))
        if seen["machine"] != holder.get("machine") or seen["began"] is None:
            return self._is_silent(number)
        return bool(seen["began"] != holder.get("began"))

    def _holder(self, number: int) -> dict[str, Any]:
        """Returns what a turn's process wrote of itself; nothing where that can't be read."""
        with suppress(StoreError, ValueError, RecursionError):
            holder = json.loads(read_bytes(self._path("json", number)))
            return holder if isinstance(holder, dict) else {}
        return {}

    def _is_silent(self, number: int) -> bool:
        """Returns whether a turn's file is old, by the clock of the file system that has it."""
        probe = self._folder / f".now.{own_mark()}"
        with suppress(OSError):
            create_file(probe, b"")
            now_s = probe.stat().st_mtime
            probe.unlink()
            return now_s - self._path("json", number).stat().st_mtime > SILENT_S
        return False

    def _who(self, number: int) -> str:
        holder = {"pid": "unknown", "host": "another host", "time_utc": "some time", **self._holder(number)}
        return f"process {holder['pid']} on {holder['host']} (since {holder['time_utc']})"

    def _beat(self) -> None:
        """Moves the time of the turn's file on, as a sign of life, until the turn is over."""
        while not self._over.wait(BEAT_S):
            with suppress(OSError):
                os.utime(self._path("json"))


def _process(pid: object) -> dict[str, Any]:
    """Returns what tells a process from another of its number.

    `began` is empty where it is over, and None where that can't be seen: another user's may be hidden.
    """
    machine, began = socket.gethostname(), None
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
        began = None if type(pid) is int and is_alive(pid) else ""
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        began = "" if fields[0] in "ZX" else fields[19]
    return {"machine": machine, "pid": pid, "began": began}
