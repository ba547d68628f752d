"""A plugin of SGLang with which torch's store of ranks listens on the address that it is given.

By itself it listens on every interface, also for a single rank on 127.0.0.1; there is no option for that.
SGLang calls `register` in every process that it starts.
"""

from __future__ import annotations

import importlib
import socket
from typing import Any


def register() -> None:
    """Put a function that listens by itself in the place of the class that torch makes stores with."""
    # `torch.distributed.rendezvous` is a function, which hides the module.
    rendezvous = importlib.import_module("torch.distributed.rendezvous")
    stock: Any = rendezvous.TCPStore
    if not isinstance(stock, type):
        return  # registered before

    def store(host_name: str, port: int, **options: Any) -> Any:
        if options.get("is_master"):
            options["master_listen_fd"] = socket.create_server((host_name, port)).detach()
        return stock(host_name, port, **options)

    rendezvous.TCPStore = store
