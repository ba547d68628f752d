"""The embedded engine: a discrete-event model without I/O, the clocks that drive it, and its HTTP server."""
