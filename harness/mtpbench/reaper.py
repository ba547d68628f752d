"""The end of processes: whatever a run starts ends with it, also where the run is killed.

A Python process of the harness calls `die_with_parent`, or ends when its standard input closes (a sampler:
it has a last line to write). `start` starts any other program (a server, a step, the user's evaluation)
under a reaper, which is this file as a process of its own. The first line of its standard input is the
program's command, as JSON.

The reaper leads the process group that the program runs in, and ends as the program ends. When its standard
input closes (the run ended, or was killed), it ends the group: SIGTERM, and 3 seconds later SIGKILL. The
kernel kills the program when the reaper itself is killed. Standard library only: it must start fast.

Source: prctl(2), PR_SET_PDEATHSIG: the signal comes when the thread ends that started the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

GRACE_S = 3.0
NOT_RUN = 127
"""The exit code of a program that can't be run."""
_SET_DEATH_SIGNAL = 1
_FOR_THE_PROGRAM = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2")
)
"""Signals to the group that are the program's to handle."""


COMMAND = (sys.executable, "-I", __file__)
"""The command that starts a reaper."""


def order(argv: Sequence[str]) -> bytes:
    """Returns the line that tells a reaper which program to run."""
    return json.dumps(list(argv)).encode() + b"\n"


def start(
    argv: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    """Starts a program under a reaper, in a process group of its own whose number is the reaper's.

    The program ends with this process, or when the standard input of the returned process is closed.

    Args:
        argv: the whole command; a program that can't be run ends with `NOT_RUN` and says why.
        environment: all of it.
        output: takes what the program prints.

    Raises:
        OSError: this machine lets no more processes start.
    """
    import subprocess

    popen = subprocess.Popen(
        COMMAND,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert popen.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has been killed, which its status shows
        popen.stdin.write(order(argv))
        popen.stdin.flush()
    return popen


def start_python(code: str, descriptor: int) -> subprocess.Popen[bytes]:
    """Starts Python code that ends with this process, even before it has imported anything.

    Args:
        code: what it runs.
        descriptor: an open file that it keeps, under the same number.

    Raises:
        OSError: this machine lets no more processes start.
    """
    import subprocess

    first = f"from mtpbench.reaper import die_with_parent; die_with_parent({os.getpid()}); "
    return subprocess.Popen(
        (sys.executable, "-P", "-c", first + code),
        stdin=subprocess.DEVNULL,
        pass_fds=(descriptor,),
        start_new_session=True,
    )


def die_with_parent(parent: int | None = None) -> None:
    """Lets the kernel kill this process when the one that started it ends; on Linux only.

    Args:
        parent: that process, where its number is known: it may have ended by now.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if parent not in (None, os.getppid()):
        os._exit(NOT_RUN)


def reap(groups: set[int], grace_s: float = GRACE_S) -> None:
    """Ends every group: SIGTERM, up to `grace_s` seconds, SIGKILL, and as long again until all are gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        deadline = time.monotonic() + grace_s
        while any(map(is_alive, groups)) and time.monotonic() < deadline:
            time.sleep(0.02)


def is_alive(group: int) -> bool:
    """Returns whether a process group still has a process that runs; zombies do not count."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    if not os.path.exists("/proc/self/stat"):
        return True
    return any(_members(group))


def program_of(reaper: int) -> int | None:
    """Returns the process of the program that a reaper runs; None where it has ended."""
    return next((pid for pid, parent, _ in _processes() if parent == reaper), None)


def _members(group: int) -> Iterable[int]:
    return (pid for pid, _, its_group in _processes() if its_group == group)


def _processes() -> Iterable[tuple[int, int, int]]:
    """Returns processes that run, each with its parent and its group; none where there is no /proc."""
    if not os.path.exists("/proc/self/stat"):
        return
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
                state, parent, group = stat.read().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if state not in "ZX":
            yield int(pid), int(parent), int(group)


def main() -> None:
    """Runs a program, and ends as it ends; ends its group when standard input closes."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _FOR_THE_PROGRAM}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    this, argv = os.getpid(), _read_order()
    program = os.fork()
    if program == 0:
        for number, handler in before.items():
            signal.signal(number, handler)
        _become(argv, this)
    null = os.open(os.devnull, os.O_WRONLY)  # who reads the output to its end waits for the program alone
    os.dup2(null, 1)
    os.dup2(null, 2)
    status = _await_end(program, woken)
    if status is None:
        _end_group()
    elif any(pid != this for pid in _members(os.getpgrp())) and os.fork() == 0:
        _await_run()  # the run ends these, as it ends the group; where it can't, this process does
    else:
        _end_as(status)


def _read_order() -> list[str]:
    """Reads the first line of standard input, and not a byte more."""
    line = bytearray()
    while not line.endswith(b"\n"):
        if not (byte := os.read(0, 1)):
            os._exit(NOT_RUN)
        line += byte
    return list(json.loads(line))


def _become(argv: Sequence[str], reaper: int) -> None:
    """Turns this process into the program."""
    for name in ("SIGPIPE", "SIGXFSZ", "SIGCHLD"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    die_with_parent(reaper)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        os.execvp(argv[0], list(argv))
    except OSError as error:
        os.write(2, f"{argv[0]!r} can't be run ({error.strerror})\n".encode())
        os._exit(NOT_RUN)


def _await_end(program: int, woken: int) -> int | None:
    """Returns the status of the program once it has ended; None where standard input closes before."""
    while True:
        ended, status = os.waitpid(program, os.WNOHANG)
        if ended:
            return status
        ready = select.select([0, woken], [], [])[0]
        if 0 in ready and not os.read(0, 1 << 12):
            return None
        if woken in ready:
            os.read(woken, 1 << 12)


def _await_run() -> None:
    """Waits for the end of the run, and ends the group then."""
    while os.read(0, 1 << 12):
        pass
    _end_group()


def _end_group() -> None:
    """Ends this process's group: SIGTERM, a while for all others, and SIGKILL, also to this process."""
    group, this = os.getpgrp(), os.getpid()
    os.killpg(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while any(pid != this for pid in _members(group)) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)


def _end_as(status: int) -> None:
    """Ends this process with the exit code or the signal that ended the program."""
    if os.WIFSIGNALED(status):
        import resource

        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the core is the program's
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
