"""mtpbench: does multi-token prediction pay, where, and by how much? The measuring half."""

__version__ = "0.1.0"
