"""Processes of the local executor: started in groups of their own, gone at the end however the run ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mtpbench import reaper
from mtpbench.deployment import LiveDeployment
from mtpbench.errors import PortInUse, StartError, StoreError
from mtpbench.executors import (
    HOST,
    LAST_BYTES,
    choose_ports,
    hide_in_files,
    last_lines,
    listens_in_group,
    new_log,
    refuse_taken,
)
from mtpbench.executors.local import LocalExecutor
from mtpbench.reaper import is_alive
from mtpbench.records import Deployment, File, Probe, Process

SERVER = textwrap.dedent(
    """
    import http.server, os, signal, subprocess, sys
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "child" in sys.argv:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("serving", flush=True)
    if "die" in sys.argv:
        print("CUDA error: out of imagination", flush=True)
        sys.exit(7)
    if "hang" in sys.argv:
        import time; time.sleep(600)
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            models = sys.argv[-1] if "models" in sys.argv else '{"data": [{"id": "m"}]}'
            self.send_response(200); self.end_headers(); self.wfile.write(models.encode())
        def log_message(self, *a): pass
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    """
)


def deployment(*behaviour: str) -> Deployment:
    process = Process(
        name="aggregated-0",
        role="aggregated",
        argv=("@{python}", "@{dir}/server.py", "@{port:aggregated-0/http}", *behaviour),
        files=(File(path="@{dir}/server.py", text=SERVER),),
        ports=("http",),
        ready=Probe(port="http", path="/health", model="m"),
    )
    return Deployment(
        key="k",
        processes=(process,),
        front="aggregated-0",
        front_port="http",
        model_name="m",
        gpus=1,
        nodes=1,
    )


def eventually(condition, timeout_s: float = 10.0) -> bool:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


async def test_a_deployment_becomes_ready_and_is_gone_afterwards(tmp_path: Path) -> None:
    executor = LocalExecutor(tmp_path)
    async with LiveDeployment(deployment("child"), executor, 30) as live:
        group = live.handles[0].group
        assert await live.unhealthy() is None
        assert live.dead() is None
        assert live.handles[0].owns_port(live.placement.ports["aggregated-0", "http"]) is True
        assert is_alive(group)
    assert not is_alive(group)


async def test_a_server_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtpbench.executors.local.STOP_GRACE_S", 0.3)
    async with LiveDeployment(deployment("stubborn", "child"), LocalExecutor(tmp_path), 30) as live:
        group = live.handles[0].group
    assert not is_alive(group)


async def test_a_server_that_dies_at_start_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"exit code 7\).*\nlast log lines:\n(.*\n)*.*out of imagination"):
        async with LiveDeployment(deployment("die"), LocalExecutor(tmp_path), 30):
            pass


async def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    executor = LocalExecutor(tmp_path)
    with pytest.raises(StartError, match=r"was not ready after 1 s"):
        async with LiveDeployment(deployment("hang"), executor, 0.6):
            pass


@pytest.mark.parametrize(
    ("models", "why"),
    [
        ("[1,2]", "there is no 'data' of data"),
        ("null", "there is no 'data' of data"),
        ('{"data":null}', "does not name m"),
        ('{"data":[null,1,{"id":["m"]},{"id":"other"}]}', "does not name m"),
        ("<html>", "bad_json: "),
        ("[" * 100_000, "bad_json: JSON that is nested too deeply"),
    ],
    ids=["list", "null", "data", "entries", "page", "deep"],
)
async def test_a_list_of_models_in_another_shape_is_said(tmp_path: Path, models: str, why: str) -> None:
    made = deployment("models", models)
    with pytest.raises(StartError, match=rf"was not ready after \d+ s \(/v1/models.*{re.escape(why)}"):
        async with LiveDeployment(made, LocalExecutor(tmp_path), 1.0):
            pass


async def test_a_program_that_is_not_installed_is_said_so(tmp_path: Path) -> None:
    made = deployment()
    missing = Process(
        name="aggregated-0", role="aggregated", argv=("no-such-engine", "serve"), ports=("http",)
    )
    made = Deployment(
        key="k",
        processes=(missing,),
        front="aggregated-0",
        front_port="http",
        model_name="m",
        gpus=1,
        nodes=1,
    )
    with pytest.raises(
        StartError, match=r"'no-such-engine' can't be run .*install the engine here, or set .engine.command."
    ):
        async with LiveDeployment(made, LocalExecutor(tmp_path), 5):
            pass


async def test_a_killed_server_is_noticed(tmp_path: Path) -> None:
    async with LiveDeployment(deployment(), LocalExecutor(tmp_path), 30) as live:
        os.kill(live.handles[0].group, signal.SIGKILL)
        assert eventually(lambda: live.dead() is not None)
        assert "aggregated-0 ended with killed by SIGKILL" in str(live.dead())
        assert "aggregated-0 ended with killed by SIGKILL" in str(await live.unhealthy())


async def test_a_stale_server_on_the_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    """Ours hangs before it binds; an older server answers on the port that was chosen for it."""
    (port,) = choose_ports(deployment(), {"aggregated-0": HOST}).values()
    (tmp_path / "stale.py").write_text(SERVER)
    stale = subprocess.Popen(
        (sys.executable, str(tmp_path / "stale.py"), str(port)),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        assert eventually(lambda: listens_in_group(port, stale.pid))
        executor = LocalExecutor(tmp_path)
        placed = executor.place(deployment("hang"))
        placed.ports["aggregated-0", "http"] = port  # type: ignore[index]
        executor.place = lambda _: placed  # type: ignore[method-assign]
        with pytest.raises(StartError, match=rf"port {port} answers, but another process listens there"):
            async with LiveDeployment(deployment("hang"), executor, 10):
                pass
    finally:
        stale.kill()
        stale.wait()


def test_a_taken_port_is_refused_by_number() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortInUse, match=rf"port {taken.getsockname()[1]} on 127.0.0.1 can't be had"):
            refuse_taken(taken.getsockname()[1])


@pytest.mark.parametrize("also", [(), ("reaper",)], ids=["run", "run and reaper"])
def test_servers_die_with_a_run_that_is_killed(tmp_path: Path, also: tuple[str, ...]) -> None:
    """SIGKILL gives the run no chance to clean up; the reaper does, and the kernel where that dies too."""
    program = textwrap.dedent(
        """
        import asyncio, sys, time
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        import test_executors
        from mtpbench.deployment import LiveDeployment
        from mtpbench.executors.local import LocalExecutor
        async def main():
            made = test_executors.deployment(*sys.argv[3:])
            async with LiveDeployment(made, LocalExecutor(Path(sys.argv[1])), 30) as live:
                print(live.handles[0].group, flush=True)
                time.sleep(600)
        asyncio.run(main())
        """
    )
    behaviour = () if also else ("child", "stubborn")
    run = subprocess.Popen(
        (sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent), *behaviour),
        stdout=subprocess.PIPE,
    )
    assert run.stdout
    group = int(run.stdout.readline())
    assert is_alive(group)
    if also:
        os.kill(run.pid, signal.SIGSTOP)  # it can do nothing about the end of its reaper
        os.kill(group, signal.SIGKILL)
    run.kill()
    run.wait()
    run.stdout.close()
    assert eventually(lambda: not is_alive(group))


async def test_a_server_goes_with_its_reaper_and_is_said(tmp_path: Path) -> None:
    async with LiveDeployment(deployment("child"), LocalExecutor(tmp_path), 30) as live:
        group = live.handles[0].group
        server = reaper.program_of(group)
        os.kill(group, signal.SIGKILL)
        assert eventually(lambda: live.dead() is not None)
        assert "aggregated-0 ended with killed by SIGKILL" in str(live.dead())
        assert server is not None
        assert eventually(lambda: not Path(f"/proc/{server}/exe").exists())
    assert not is_alive(group)


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("exit 7", 7, ""),
        ("kill -SEGV $$", -signal.SIGSEGV, ""),
        ("kill -KILL $$", -signal.SIGKILL, ""),
        ("trap 'exit 3' TERM; kill -TERM 0; sleep 9", 3, ""),
        ("cat; echo $1 $VALUE >&2", 0, "a b c"),
    ],
)
def test_a_reaper_ends_as_its_program_does(command: str, code: int, words: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+b") as log:
        popen = reaper.start(("sh", "-c", command, "sh", "a b"), {**os.environ, "VALUE": "c"}, log)
        assert popen.wait(20) == code
        assert popen.stdin
        popen.stdin.close()
        log.seek(0)
        assert log.read().decode().strip() == words


def test_a_program_that_can_not_be_run_says_so(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("no program")
    program.chmod(0o755)
    with (tmp_path / "log").open("w+b") as log:
        popen = reaper.start((str(program),), os.environ, log)
        assert popen.wait(20) == reaper.NOT_RUN
        assert popen.stdin
        popen.stdin.close()
    assert "can't be run (Exec format error)" in (tmp_path / "log").read_text()


def test_what_a_program_leaves_ends_with_the_run_and_not_before(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+b") as log:
        popen = reaper.start(("sh", "-c", "sleep 600 & exit 0"), os.environ, log)
    assert popen.wait(20) == 0
    assert is_alive(popen.pid)
    assert popen.stdin
    popen.stdin.close()
    assert eventually(lambda: not is_alive(popen.pid))


@pytest.mark.parametrize("name", ["server.py", "aggregated-0.log"])
def test_a_link_that_someone_planted_is_never_written_through(tmp_path: Path, name: str) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "start"
    precious.write_text("precious")
    folder.mkdir()
    (folder / name).symlink_to(precious)
    served, executor = deployment("die"), LocalExecutor(folder)
    try:
        handle = executor.start(served.processes[0], executor.place(served))
        assert eventually(handle.ended)
        assert not (folder / name).is_symlink()
    except StoreError as error:
        assert str(folder / name) in str(error)  # noqa: PT017 (what is replaced is no error)
    finally:
        executor.stop()
    assert precious.read_text() == "precious"


def test_the_end_of_a_log_of_any_size_is_read_alone(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.touch()
    os.truncate(log, 1 << 36)
    with log.open("ab") as file:
        file.write(b"\nlast but one\nlast\n")
    assert last_lines(log, 2) == "last but one\nlast"
    log.write_bytes(b"x" * (3 * LAST_BYTES))
    assert last_lines(log, 2) == "x" * LAST_BYTES


def test_secrets_go_out_of_a_log_that_is_one_endless_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtpbench.executors.HIDE_AT_ONCE_BYTES", 1000)
    pieces: list[int] = []

    def hide(text: bytes) -> bytes:
        pieces.append(len(text))
        return text.replace(b"SECRET", b"***")

    (tmp_path / "a.log").write_bytes(b"x" * 900 + b"SECRET" + b"y" * 9000)
    (tmp_path / "b.log").write_bytes(b"x" * 997 + b"SECRET" + b"y" * 9 + b"\n" + b"z" * 900)
    assert hide_in_files(tmp_path, hide) == ()
    assert max(pieces) <= 2000
    assert (tmp_path / "a.log").read_bytes() == b"x" * 900 + b"***" + b"y" * 9000
    assert (tmp_path / "b.log").read_bytes() == b"x" * 997 + b"***" + b"y" * 9 + b"\n" + b"z" * 900
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "b.log"]


def test_a_file_whose_secrets_stay_is_named_and_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.log", "b.log"):
        (tmp_path / name).write_text("SECRET")

    def refuse(path: Path, target: Path) -> None:
        if target.name == "a.log":
            raise PermissionError(1, "Operation not permitted")
        os.replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    (said,) = hide_in_files(tmp_path, lambda text: text.replace(b"SECRET", b"***"))
    assert said.startswith(f"{tmp_path / 'a.log'}: secrets may stand in it")
    assert (tmp_path / "b.log").read_text() == "***"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "b.log"]


def test_the_log_of_an_earlier_start_goes(tmp_path: Path) -> None:
    """A deployment may be started again in the folder of its first start."""
    log = tmp_path / "a.log"
    for text in (b"first", b"second"):
        with new_log(log) as output:
            output.write(text)
    assert log.read_bytes() == b"second"
