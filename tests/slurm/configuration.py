"""The text of a private cluster's configuration files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
CPUS, MEMORY_MB = 144, 20000
MESSAGE_TIMEOUT_S = 4
"""How long programs wait for the controller before they say "Socket timed out" (Slurm's default: 10)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What a cluster is made of.

    Args:
        root: its folder.
        host: what this machine calls itself, to the daemons.
        user: who runs all daemons and is Slurm's administrator.
        ports: by daemon or node.
        gpu_files: the device file of each GPU, the same on every node.
        min_job_age_s: how long the controller remembers a finished job.
        lines: further lines of slurm.conf.
    """

    root: Path
    host: str
    user: str
    nodes: tuple[str, ...]
    ports: Mapping[str, int]
    gpu_files: tuple[str, ...]
    accounting: bool
    min_job_age_s: int
    lines: Sequence[str] = ()

    @property
    def munge_socket(self) -> Path:
        """Where munged listens, and every other daemon finds it."""
        return self.root / "munge" / "socket"


def slurm_conf(layout: Layout) -> str:
    """slurm.conf: no cgroups, a fast scheduler, listeners on the loopback interface only."""
    root, user = layout.root, layout.user
    node = (
        f"NodeHostname={layout.host} NodeAddr={LOOPBACK} Gres=gpu:gb200:{len(layout.gpu_files)} "
        f"CPUs={CPUS} Boards=1 Sockets=2 CoresPerSocket={CPUS // 2} ThreadsPerCore=1 RealMemory={MEMORY_MB}"
    )
    return "\n".join(
        (
            "ClusterName=private",
            f"SlurmctldHost={layout.host}({LOOPBACK})",
            f"SlurmctldPort={layout.ports['slurmctld']}",
            # Every daemon listens on what the host's name means, which is the loopback interface.
            "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny",
            f"SlurmUser={user}",
            f"SlurmdUser={user}",
            "AuthType=auth/munge",
            # A requeued job waits until its old credential has expired; 2 minutes by default.
            f"AuthInfo=socket={layout.munge_socket},cred_expire=5",
            "CredType=cred/munge",
            f"StateSaveLocation={root}/state",
            f"SlurmdSpoolDir={root}/spool/%n",
            f"SlurmctldPidFile={root}/run/slurmctld.pid",
            f"SlurmdPidFile={root}/run/slurmd.%n.pid",
            f"SlurmctldLogFile={root}/log/slurmctld.log",
            f"SlurmdLogFile={root}/log/slurmd.%n.log",
            "SlurmdParameters=config_overrides",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "MpiDefault=none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "SchedulerType=sched/backfill",
            "SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0",
            "GresTypes=gpu",
            "ReturnToService=2",
            "JobRequeue=1",
            f"MinJobAge={layout.min_job_age_s}",
            "KillWait=2",
            "InactiveLimit=0",
            f"MessageTimeout={MESSAGE_TIMEOUT_S}",
            "SlurmctldTimeout=10",
            "SlurmdTimeout=10",
            *(_accounting(layout) if layout.accounting else ()),
            *layout.lines,
            *(f"NodeName={name} Port={layout.ports[name]} {node}" for name in layout.nodes),
            "PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
            "",
        )
    )


def _accounting(layout: Layout) -> tuple[str, ...]:
    return (
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={LOOPBACK}",
        f"AccountingStoragePort={layout.ports['slurmdbd']}",
        f"AccountingStoragePass={layout.munge_socket}",
        "AccountingStorageTRES=gres/gpu",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=1",
    )


def slurmdbd_conf(layout: Layout) -> str:
    """slurmdbd.conf: the history, in a MariaDB of the cluster's own."""
    return "\n".join(
        (
            "AuthType=auth/munge",
            f"AuthInfo=socket={layout.munge_socket}",
            f"DbdHost={layout.host}",
            f"DbdAddr={LOOPBACK}",
            f"DbdPort={layout.ports['slurmdbd']}",
            "CommunicationParameters=NoInAddrAny",
            f"SlurmUser={layout.user}",
            f"LogFile={layout.root}/log/slurmdbd.log",
            f"PidFile={layout.root}/run/slurmdbd.pid",
            "StorageType=accounting_storage/mysql",
            f"StorageHost={LOOPBACK}",
            f"StoragePort={layout.ports['mariadbd']}",
            "StorageUser=slurm",
            "StoragePass=slurm",
            "StorageLoc=slurm_acct",
            "",
        )
    )


def gres_conf(layout: Layout) -> str:
    """gres.conf: GPUs with a file each, or jobs would not get CUDA_VISIBLE_DEVICES."""
    files = ",".join(layout.gpu_files)
    return "".join(f"NodeName={name} Name=gpu Type=gb200 File={files}\n" for name in layout.nodes)
