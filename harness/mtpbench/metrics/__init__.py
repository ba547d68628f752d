"""Pure: what is computed from the raw records of one point."""
