"""Pure: the figures that are computed from the raw records of one point."""
