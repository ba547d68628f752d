"""What is known of a sweep that goes on: from its results folder, and from Slurm where it is asked."""
