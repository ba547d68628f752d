"""Sweep files: YAML is checked and expanded to points."""

from mtpbench.sweep.expansion import Sweep, load_sweep, simulate, with_simulated

__all__ = ["Sweep", "load_sweep", "simulate", "with_simulated"]
