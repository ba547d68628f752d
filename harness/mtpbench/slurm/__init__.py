"""Slurm: sweeps as batch jobs. Truth is files; Slurm says only whether a job lives and what ended it."""

from __future__ import annotations

from collections.abc import Mapping

_INHERITED = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SALLOC_", "SRUN_")
_KEPT = frozenset(("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"))


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment without what an enclosing job or a user's profile set for Slurm's programs.

    Slurm's programs take options from there: a job submitted inside another would inherit its
    nodes and tasks.
    """
    return {
        name: value for name, value in environment.items() if name in _KEPT or not name.startswith(_INHERITED)
    }


def step_environment(cleaned: Mapping[str, str], job_id: str) -> dict[str, str]:
    """Returns the environment for `srun`: it holds nothing that describes the batch job's own task."""
    own = {name: value for name, value in cleaned.items() if not name.startswith(("PMI_", "PMIX_"))}
    return {**own, "SLURM_JOB_ID": job_id, "PYTHONUNBUFFERED": "1"}
