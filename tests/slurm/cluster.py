"""A private real Slurm on one machine: four simulated nodes of 4 GPUs, on the loopback interface only.

    with PrivateSlurm(folder) as slurm:
        slurm.run("sbatch", "--wrap", "hostname")

Needs Debian's packages (prepare.py installs them), neither root nor systemd nor cgroups. Tried on 22.05.8.
The nodes and their GPUs are made up (`n0` to `n3` are slurmd processes here, a GPU is a device file that is
not one); controller, queue, node failures, limits and accounting are Slurm's own.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from slurm.configuration import LOOPBACK, Layout, gres_conf, slurm_conf, slurmdbd_conf
from slurm.guardian import JOB_ID

GUARDIAN = Path(__file__).with_name("guardian.py")
START_S, CLIENT_S = 30.0, 30.0
FOLDERS = ("etc", "state", "log", "run", "munge", "dev", "out")
DEVICES = ("null", "zero", "full", "random")


class PrivateSlurm:
    """A cluster that lives inside a `with`, and ends with it even when this process is killed.

    Args:
        root: an empty folder for configuration, state and logs.
        nodes: simulated nodes, named n0, n1, ….
        gpus: GPUs of each node, simulated (at most 4 where no device files can be made).
        accounting: whether slurmdbd and a MariaDB keep a history for sacct.
        min_job_age_s: how long the controller remembers a finished job.
        lines: further lines of slurm.conf.
        files: further files beside slurm.conf, such as topology.conf.
    """

    def __init__(
        self,
        root: Path,
        *,
        nodes: int = 4,
        gpus: int = 4,
        accounting: bool = False,
        min_job_age_s: int = 300,
        lines: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
    ) -> None:
        self.root = root.resolve()
        self.names = tuple(f"n{number}" for number in range(nodes))
        self.conf = self.root / "etc" / "slurm.conf"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))},
            "SLURM_CONF": str(self.conf),
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        }
        self._files = dict(files or {})
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._guardian: subprocess.Popen[str] | None = None
        host, self._wrapper = _loopback_host()
        for name in FOLDERS:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self._layout = Layout(
            root=self.root,
            host=host,
            user=pwd.getpwuid(os.getuid()).pw_name,
            nodes=self.names,
            ports=_free_ports(("slurmctld", "slurmdbd", "mariadbd", *self.names)),
            gpu_files=_gpu_files(self.root / "dev", gpus),
            accounting=accounting,
            min_job_age_s=min_job_age_s,
            lines=tuple(lines),
        )

    # --- life ---

    def __enter__(self) -> PrivateSlurm:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End everything, by the same process that does it when this one is killed."""
        if self._guardian is None:
            return
        assert self._guardian.stdin
        self._guardian.stdin.close()
        self._guardian.wait()
        self._guardian = None
        for daemon in self._daemons.values():
            daemon.wait()
        self._daemons.clear()

    # --- use ---

    def run(self, *words: str | Path, check: bool = True) -> str:
        """What one of Slurm's programs printed, stripped.

        Raises:
            AssertionError: it failed, and `check` was not turned off.
        """
        done = subprocess.run(
            [str(word) for word in words],
            env=self.env,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=CLIENT_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stderr.strip()}"
        return done.stdout.strip()

    def submit(self, commands: str, *words: str) -> str:
        """Submit a batch script of shell commands; its job id. Its output is in the folder `out`."""
        script = f"#!/bin/bash\n{commands}\n"
        done = subprocess.run(
            ["sbatch", "--parsable", "--output", str(self.root / "out" / "%j.log"), *words],
            input=script,
            env=self.env,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=CLIENT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().partition(";")[0]

    def state(self, job_id: str) -> str:
        """Slurm's word for a job's state, such as RUNNING; empty where the controller has forgotten it."""
        return self.run("squeue", "-h", "-t", "all", "-j", job_id, "-o", "%T", check=False)

    def wait_for_state(self, job_id: str, *states: str, limit_s: float = 60.0) -> str:
        """Wait until a job is in one of these states; the state it is in."""
        wait_until(lambda: self.state(job_id) in states, f"job {job_id} {states}", limit_s, 0.1)
        return self.state(job_id)

    def wait_until_idle(self, limit_s: float = 60.0) -> None:
        """Wait until every node is idle: no job of an earlier test holds one."""
        wait_until(self._all_idle, "every node idle", limit_s, 0.1)

    def clear(self) -> None:
        """Cancel every job, bring every node back; for a fresh start between tests."""
        self.thaw()
        for name in self.names:
            self.revive_node(name)
        if jobs := set(self.run("squeue", "-h", "-o", JOB_ID).split()):
            self.run("scancel", *sorted(jobs), check=False)
        self.wait_until_idle()

    # --- trouble ---

    @property
    def controller(self) -> int:
        """The controller's process."""
        return self._daemons["slurmctld"].pid

    def freeze(self) -> None:
        """The controller stops answering, as one that is overloaded or hangs on its disk."""
        os.kill(self.controller, signal.SIGSTOP)

    def thaw(self) -> None:
        """The controller goes on; what was sent to it meanwhile it works off."""
        os.kill(self.controller, signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The controller frozen for the length of a `with`."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def kill_node(self, name: str, *, noticed: bool = False) -> None:
        """Kill a node's slurmd. Its jobs' processes go on as orphans, like behind a broken network.

        Args:
            name: the node.
            noticed: tell the controller at once; else it notices by itself, which takes 10 to 20 s.
        """
        daemon = self._daemons[f"slurmd.{name}"]
        daemon.kill()
        daemon.wait()
        # Drained too: an answer of its that is still under way would bring it back.
        for state in ("drain", "down") if noticed else ():
            self.run("scontrol", "update", f"nodename={name}", f"state={state}", "reason=killed by a test")

    def revive_node(self, name: str) -> None:
        """Start a killed node's slurmd again; the node takes jobs as soon as it is idle."""
        if self._daemons[f"slurmd.{name}"].poll() is not None:
            self._start_node(name)
            self.run("scontrol", "update", f"nodename={name}", "state=resume", check=False)

    def end_time_limit(self, job_id: str) -> None:
        """Let a running job's time limit end in 2 s; Slurm notices within 30 s."""
        self.run("scontrol", "update", f"jobid={job_id}", "EndTime=now+2")

    # --- inside ---

    def _start(self) -> None:
        (self.root / "munge").chmod(0o711)
        self._guardian = subprocess.Popen(
            (sys.executable, str(GUARDIAN), str(self.conf)),
            env=self.env,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._start_munged()
        self._write_configuration()
        if self._layout.accounting:
            self._start_accounting()
        self._spawn("slurmctld", "slurmctld", "-D", "-c", "-f", self.conf)
        self._wait_for_port("slurmctld")
        for name in self.names:
            self._start_node(name)
        self._wait_for(self._all_idle, "every node idle")

    def _spawn(self, name: str, *words: str | Path) -> None:
        """Start a daemon in the foreground, so that it is our child, and tell the guardian."""
        assert self._guardian
        assert self._guardian.stdin
        with (self.root / "log" / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                [*self._wrapper, *map(str, words)],
                env=self.env,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._guardian.stdin.write(f"{self._daemons[name].pid}\n")
        self._guardian.stdin.flush()

    def _start_node(self, name: str) -> None:
        (self.root / "spool" / name).mkdir(parents=True, exist_ok=True)
        self._spawn(f"slurmd.{name}", "slurmd", "-D", "-N", name, "-f", self.conf)

    def _start_munged(self) -> None:
        folder, socket_path = self.root / "munge", self._layout.munge_socket
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o400)
        names = {"key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        words = [f"--{option}={folder / name}" for option, name in names.items()]
        self._spawn("munged", "munged", "--foreground", "--force", f"--socket={socket_path}", *words)
        self._wait_for(socket_path.exists, "munged's socket")

    def _start_accounting(self) -> None:
        data, user, port = self.root / "db", self._layout.user, self._layout.ports["mariadbd"]
        install = ("mariadb-install-db", "--no-defaults", f"--user={user}", f"--datadir={data}")
        words = (*install, "--auth-root-authentication-method=normal", "--skip-test-db")
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        grants = (
            f"create user if not exists slurm@'{host}' identified by 'slurm';\n"
            f"grant all on slurm_acct.* to slurm@'{host}';\n"
            for host in ("localhost", LOOPBACK)
        )
        (self.root / "etc" / "init.sql").write_text("".join(grants))
        self._spawn(
            "mariadbd",
            *("mariadbd", "--no-defaults", f"--user={user}", f"--datadir={data}"),
            *(f"--socket={self.root}/run/db.sock", f"--port={port}", f"--bind-address={LOOPBACK}"),
            *(f"--pid-file={self.root}/run/db.pid", f"--init-file={self.root}/etc/init.sql"),
            *("--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0"),
            "--innodb-lock-wait-timeout=900",
        )
        self._wait_for_port("mariadbd")
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self._wait_for_port("slurmdbd")
        self.run("sacctmgr", "-i", "add", "cluster", "private")

    def _write_configuration(self) -> None:
        old = " 22." in self.run("slurmctld", "-V")
        files = {
            "slurm.conf": slurm_conf(self._layout),
            "gres.conf": gres_conf(self._layout),
            "slurmdbd.conf": slurmdbd_conf(self._layout),
            # 22.05 reads cgroup.conf even without cgroup plugins; 24.11 does not know CgroupAutomount.
            "cgroup.conf": "CgroupAutomount=no\n" if old else "CgroupPlugin=disabled\n",
            **self._files,
        }
        for name, text in files.items():
            (self.conf.parent / name).write_text(text)
        (self.conf.parent / "slurmdbd.conf").chmod(0o600)

    def _all_idle(self) -> bool:
        idle = self.run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N", check=False)
        return set(idle.split()) == set(self.names)

    def _wait_for_port(self, name: str) -> None:
        self._wait_for(lambda: _listens(self._layout.ports[name]), f"{name} to listen")

    def _wait_for(self, reached: Callable[[], bool], what: str) -> None:
        """Wait for a daemon, and say what its log ends with where it died instead."""

        def reached_or_dead() -> bool:
            for name, daemon in self._daemons.items():
                if (code := daemon.poll()) is not None:
                    log = (self.root / "log" / f"{name}.out").read_text("utf-8", "replace")
                    raise RuntimeError(f"{name} ended with {code}:\n{log[-2000:]}")
            return reached()

        wait_until(reached_or_dead, what, START_S)


def wait_until(reached: Callable[[], bool], what: str, limit_s: float, step_s: float = 0.05) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: it was not so within `limit_s` seconds.
    """
    until = time.monotonic() + limit_s
    while not reached():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {limit_s:g} s for {what}")
        time.sleep(step_s)


def _loopback_host() -> tuple[str, tuple[str, ...]]:
    """The name under which daemons bind to the loopback interface, and a program that starts them so.

    Slurm binds to every interface, or to whatever the machine's name means. Where that is not the loopback
    interface, daemons get a namespace in which the machine is called localhost.
    """
    host = socket.gethostname().partition(".")[0]
    with contextlib.suppress(OSError):
        if socket.gethostbyname(socket.gethostname()) == LOOPBACK:
            return host, ()
    own = () if os.geteuid() == 0 else ("--map-current-user", "--keep-caps")
    wrapper = ("unshare", *own, "--uts", "sh", "-c", 'hostname localhost && exec "$@"', "sh")
    tried = subprocess.run((*wrapper, "true"), capture_output=True, text=True, check=False)
    if tried.returncode:
        raise RuntimeError(
            f"{host} is not {LOOPBACK} in /etc/hosts, and no namespace can be made ({tried.stderr.strip()}): "
            "Slurm would listen on other interfaces than loopback"
        )
    return "localhost", wrapper


def _gpu_files(folder: Path, gpus: int) -> tuple[str, ...]:
    """Device files that stand for GPUs: made ones, or /dev/null and its like where none can be made."""
    made = [folder / f"nvidia{number}" for number in range(gpus)]
    try:
        for path in made:
            if not path.exists():
                os.mknod(path, 0o20666, os.makedev(1, 3))
    except PermissionError:
        assert gpus <= len(DEVICES), f"without root at most {len(DEVICES)} GPUs"
        return tuple(f"/dev/{name}" for name in DEVICES[:gpus])
    return tuple(map(str, made))


def _free_ports(names: Sequence[str]) -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return {name: one.getsockname()[1] for name, one in zip(names, sockets, strict=True)}


def _listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(0.3)
        return one.connect_ex((LOOPBACK, port)) == 0
