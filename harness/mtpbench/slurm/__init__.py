"""Slurm: sweeps as batch jobs. Truth is files; Slurm says only whether a job lives and what ended it."""
