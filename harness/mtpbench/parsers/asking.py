"""How the asker is started: the Python of an engine that is installed here, or of its image on a cluster.

A launcher takes a `Program` and returns the `Launch` that runs its engine's Python, or raises `NotHere`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import IO, Any, Literal, get_args

from mtpbench.parsers.asker import LONGEST
from mtpbench.records import Container, Process, decode_json, from_json
from mtpbench.redaction import Secrets
from mtpbench.slurm.client import Slurm
from mtpbench.slurm.cluster_profile import ClusterProfile, clock
from mtpbench.slurm.job_steps import StepOptions

HERE_LIMIT_S = 300.0
"""An engine's import takes up to a minute on a busy machine; the checks of a sweep as long again."""
CLUSTER_LIMIT_S = 900.0
"""A job waits for its node and its image first."""
END_S = 10.0
_PYTHON = re.compile(rb"(\S*/)?python[0-9.]*")
_FILES = ("asker", "asked")
_START = """
import json, sys, types
for name, text in json.loads({texts!r}):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    exec(compile(text, name, "exec"), module.__dict__)
sys.modules["mtpbench.parsers.asker"].main(sys.modules["mtpbench.parsers.asked"].ENGINES)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A program is what a command line starts, and whose parser can be asked.

    Args:
        name: an engine of `asked.ENGINES`.
        python: the interpreter that the command line names; None where it names the program alone.
        command: the program that the command line names; its first line names the interpreter.
        image: the container's image; None where there is none.
    """

    name: str
    python: str | None = None
    command: str | None = None
    image: str | None = None


class NotHere(Exception):
    """A program can't be asked here; the message says why."""


def asker_text() -> str:
    """Returns the asker as one program for `python -c`."""
    folder = resources.files("mtpbench.parsers")
    texts = [("mtpbench", ""), ("mtpbench.parsers", "")]
    texts += [(f"mtpbench.parsers.{name}", (folder / f"{name}.py").read_text("utf-8")) for name in _FILES]
    return _START.format(texts=json.dumps(texts))


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """A launch starts an engine's Python.

    Args:
        argv: the interpreter, behind what leads to it (`srun …`).
        environment: all of it.
        limit_s: the longest that all answers together may take.
        code: what the interpreter runs.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    limit_s: float = HERE_LIMIT_S
    code: str = field(default_factory=asker_text)


Launcher = Callable[[Program], Launch]


def launch_here(program: Program) -> Launch:
    """Returns the launch of an engine that is installed on this machine.

    Raises:
        NotHere: there is no such program.
    """
    wanted = program.python or program.command or ""
    found = shutil.which(wanted)
    if found is None:
        is_there = os.path.dirname(wanted) and os.path.exists(wanted)
        raise NotHere(f"{wanted} is no program" if is_there else f"no {wanted} on this machine")
    return Launch(
        argv=(found if program.python else _python_behind(Path(found)),), environment=dict(os.environ)
    )


def _python_behind(script: Path) -> str:
    """Returns the Python that runs a program: its first line names it, or the second where that is too long.

    Raises:
        NotHere: it is no program of Python's.
    """
    try:
        with script.open("rb") as file:
            start = file.read(2) == b"#!" and file.readline() + file.readline()
    except OSError as error:
        raise NotHere(f"{script} can't be read ({error.strerror})") from error
    words = [word for word in (start or b"").split() if _PYTHON.fullmatch(word)]
    if not words:
        raise NotHere(f"{script} is no program of Python's, whose parser could be asked")
    return os.fsdecode(words[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterLauncher:
    """The cluster launcher asks on one node of a cluster, in the engine's image where the profile has one.

    It asks for no GPU: where a partition lends nodes only with GPUs, the profile's directives say so.
    """

    profile: ClusterProfile
    slurm: Slurm = field(default_factory=Slurm)

    def __call__(self, program: Program) -> Launch:
        """Returns the `srun` of the program's Python.

        Raises:
            NotHere: Slurm is not here, or a path can't be written.
        """
        if (missing := self.slurm.available()) is not None:
            raise NotHere(missing)
        inside = in_image(program, StepOptions.of(self.profile))
        python = program.python or "python3"
        start = (*self._options(), *inside, *(() if inside else self._prepared()), python)
        return Launch(
            argv=start,
            environment={**self.slurm.environment, **self.profile.environment},
            limit_s=CLUSTER_LIMIT_S,
        )

    def _options(self) -> tuple[str, ...]:
        names = ("partition", "account", "qos", "reservation", "constraint")
        values = {name: getattr(self.profile, name) for name in names}
        chosen = [f"--{name}={value}" for name, value in values.items() if value is not None]
        limit = clock(60 * math.ceil(min(CLUSTER_LIMIT_S, self.profile.time_limit_s) / 60))
        fixed = ("--job-name=mtpbench-parsers", "--nodes=1", "--ntasks=1", f"--time={limit}", "--mpi=none")
        return ("srun", *fixed, "--unbuffered", "--export=ALL", *chosen, *self.profile.directives)

    def _prepared(self) -> tuple[str, ...]:
        """Returns what runs the profile's commands in front of another one's own."""
        if not self.profile.pre_commands:
            return ()
        lines = "\n".join(map(shlex.join, self.profile.pre_commands))
        return ("bash", "-c", f'set -e\n{lines}\nexec "$@"', "bash")


def in_image(program: Program, options: StepOptions) -> tuple[str, ...]:
    """Returns pyxis's options for the image that a program runs in; none where it runs in none."""
    image = options.image or program.image
    if not options.container or image is None:
        return ()
    mounts = (f"--container-mounts={','.join(options.mounts)}",) if options.mounts else ()
    return (f"--container-image={image}", *mounts, *options.container_flags)


# --- what an asker says ---

Kind = Literal[
    "refused", "unknown_option", "by_prefix", "deprecated", "port_twice", "config_refused", "ignored"
]
REFUSALS: frozenset[Kind] = frozenset(get_args(Kind)) - {"by_prefix", "deprecated"}
"""The engine would not start, or not as it was meant to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A finding is what an engine says of a command line.

    Args:
        kind: what it means for the start.
        stage: `parser`, `checks`, `config`, `ports`; `worker` where two processes don't fit together.
        message: the engine's own words, where it has any.
        option: the option, key or variable that it is about; None where that is not known.
    """

    kind: Kind
    stage: str
    message: str
    option: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Balancing:
    """Balancing is how a node of a data-parallel vLLM worker gets its requests.

    Args:
        balances_itself: whether something in front of the worker's nodes chooses among them.
        headless: whether the node takes no requests itself.
    """

    balances_itself: bool
    headless: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer is what an engine makes of one line; `ports` are those that it opens by itself."""

    number: int
    stages: tuple[str, ...]
    findings: tuple[Finding, ...]
    left_out: Mapping[str, str]
    ports: Mapping[str, int]
    facts: Balancing | None

    def fault(self) -> str | None:
        """Returns why nothing was learned of the line; None where something was."""
        is_refused = any(finding.kind in REFUSALS for finding in self.findings)
        return None if self.stages or is_refused else "no stage, and no refusal"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ready:
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _NotAsked:
    reason: str


_MESSAGES: Mapping[object, type[_Ready | _NotAsked | Answer]] = {
    "ready": _Ready,
    "not_asked": _NotAsked,
    "answer": Answer,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """Answers are what an asker said, by the question's number, and why it did not say more."""

    versions: Mapping[str, str]
    by_number: Mapping[int, Answer]
    reason: str


def shown(text: str, secrets: Secrets) -> str:
    """Returns an engine's words as they may be shown: short, without secrets and control characters."""
    hidden = secrets.hide(_clean(text))
    return hidden if len(hidden) <= LONGEST else f"{hidden[:LONGEST]}…"


_STEERING = re.compile(r"\x1b\[[0-9;?]*[@-~]")


def _clean(text: str) -> str:
    """Returns a text without what steers a terminal; line feeds stay."""
    kept = (
        sign if sign.isprintable() or sign == "\n" else " " * sign.isspace()
        for sign in _STEERING.sub("", text)
    )
    return "".join(kept).strip()


def run_asker(launch: Launch, program: str, questions: Sequence[Mapping[str, Any]]) -> Answers:
    """Asks one engine all questions; one that can't be loaded, dies or is too slow answers fewer."""
    text = "".join(json.dumps(question) + "\n" for question in questions).encode()
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                (*launch.argv, "-c", launch.code, program),
                env=launch.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # no such program; a NUL in a script's first line
            reason = f"{launch.argv[0]} can't be run: {getattr(error, 'strerror', error)}"
            return Answers(versions={}, by_number={}, reason=reason)
        output, in_time = _communicate(process, text, launch.limit_s)
        ending = _ending(process, errors) if in_time else f"no answer within {launch.limit_s:g} s"
    answers = _read(output, ending)
    return replace(answers, reason=f"{launch.argv[-1]}: {answers.reason}")


def _communicate(process: subprocess.Popen[bytes], text: bytes, limit_s: float) -> tuple[bytes, bool]:
    """Returns what a program prints until its end or the limit, and whether it ended in time."""
    try:
        return process.communicate(text, limit_s)[0], True
    except subprocess.TimeoutExpired:
        return _end(process), False
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> bytes:
    """Ends a program and what it started, SIGTERM first: `srun` then ends its step; returns its output.

    Another signal to this process meanwhile kills them at once.
    """
    try:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=END_S)
    finally:
        _signal_group(process, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=END_S)[0]
    return b""


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _ending(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
    lines = [*filter(None, map(_clean, errors.read().decode("utf-8", "replace").splitlines()))]
    return f"ended with exit code {process.returncode}: {lines[-1] if lines else 'no message'}"


def _read(output: bytes, ending: str) -> Answers:
    """Reads an asker's messages, up to the first that is not as an asker writes it."""
    versions: Mapping[str, str] = {}
    answers: dict[int, Answer] = {}
    reason = ending
    for line in output.decode("utf-8", "replace").splitlines():
        try:
            message: Any = decode_json(line)
        except ValueError:
            continue  # an engine's or a site's
        if not isinstance(message, dict) or not isinstance(kind := message.pop("asker", None), str):
            continue
        try:
            said = from_json(_MESSAGES[kind], message)
        except (KeyError, ValueError):
            return Answers(versions=versions, by_number=answers, reason="its answer is not readable")
        if isinstance(said, _Ready):
            versions = said.versions
        elif isinstance(said, Answer):
            answers[said.number] = said
        else:
            reason = said.reason
    return Answers(versions=versions, by_number=answers, reason=reason)


# --- what a command line starts ---

_MODULES = {
    "vllm.entrypoints.openai.api_server": "vllm",
    "sglang.launch_server": "sglang",
    "sglang_router.launch_router": "sglang_router",
    "smg.launch_router": "smg",
    **{f"dynamo.{name}": f"dynamo.{name}" for name in ("frontend", "mocker", "sglang", "trtllm", "vllm")},
}
_COMMANDS = {("vllm", "serve"): "vllm", ("sglang", "serve"): "sglang", ("trtllm-serve",): "trtllm-serve"}


def program_of(process: Process) -> tuple[Program, tuple[str, ...]] | None:
    """Returns the program that a process's command line starts, and the words after its name.

    Returns:
        None where no parser of it can be asked.
    """
    argv, image = process.argv, _image(process.container)
    if "-m" in argv[1:-1]:
        at = argv.index("-m")
        if (module := _MODULES.get(argv[at + 1])) is None:
            return None
        return Program(name=module, python=argv[at - 1], image=image), argv[at + 2 :]
    for start, word in enumerate(argv):
        for command, name in _COMMANDS.items():
            if (Path(word).name, *argv[start + 1 : start + len(command)]) == command:
                found = Program(name=name, command=word, image=image)
                return found, argv[start + len(command) :]
    return None


def _image(container: Container | None) -> str | None:
    return container.image if container is not None else None
