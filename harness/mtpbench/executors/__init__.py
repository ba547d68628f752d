"""Executors run the processes that engines describe: `local` on this machine, `slurm.executor` in a job."""
