"""Documents and comparisons in every format: one function each, for every document."""
