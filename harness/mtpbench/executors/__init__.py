"""Where a described process runs: `local` (process groups on this machine); Slurm steps come beside it."""
