"""Where a described process runs: `local` is this machine; Slurm jobs are in `slurm.executor`."""
