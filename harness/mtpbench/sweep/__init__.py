"""Sweep files: YAML, checked, to `tuple[Point]`."""

from mtpbench.sweep.expansion import Sweep, load_sweep, simulate

__all__ = ["Sweep", "load_sweep", "simulate"]
