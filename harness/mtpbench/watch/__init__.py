"""What the files of a results folder tell of a run that goes on: read-only, and only what changed is read."""
