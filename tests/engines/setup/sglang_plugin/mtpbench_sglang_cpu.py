"""A plugin that lets SGLang 0.5.23 draft and verify on any x86 CPU, from PyPI's packages alone.

1. Only SGLang's attention backend `intel_amx` speculates on a CPU, and without AMX SGLang puts `torch_native`
   in its place. Here it stays: its kernels are those of `sgl_kernel` beside this module, in plain torch.
2. PyPI's torchvision looks up two operators of its CUDA build when it is imported, and fails beside torch's
   own CPU build. Here they are declared, without a kernel: nothing calls them.
3. torch's store of ranks listens on every interface, also for one rank on 127.0.0.1, and SGLang has no option
   for that. Here it listens on the address that it is given.

SGLang calls `register` in every process that it starts; a .pth file calls `mend_torchvision` at the start of
every interpreter, so this module imports nothing heavy.
"""

from __future__ import annotations

import importlib
import importlib.abc
import socket
import sys
from collections.abc import Sequence
from typing import Any

OPERATORS = ("nms", "qnms")
REPLACED = "_attention_backend_platform_fallbacks"


def register() -> None:
    """Keep the attention backend, and what listens on its address."""
    keep_attention_backend()
    listen_where_told()


def keep_attention_backend() -> None:
    """Put a pass that changes nothing in the place of the one that falls back to other attention backends."""
    from sglang.srt.arg_groups import attention_hook

    def keep_backend(view: Any) -> dict[str, str]:
        del view
        return {}

    if not hasattr(attention_hook, REPLACED):
        raise RuntimeError(f"this plugin is for SGLang 0.5.23: there is no {REPLACED} here")
    # SGLang notes in its log which pass decided what, by this name.
    keep_backend.__name__ = keep_backend.__qualname__ = REPLACED
    attention_hook._attention_backend_platform_fallbacks = keep_backend


def listen_where_told() -> None:
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


def mend_torchvision() -> None:
    """Declare torchvision's operators as soon as something imports torchvision.

    Python obeys a .pth file of a virtual environment twice, and torch wants operators declared once.
    """
    if not any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTorchvision())


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Finds nothing; declares the operators when it is asked for torchvision."""

    library: Any = None

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> None:
        if name != "torchvision":
            return
        sys.meta_path.remove(self)
        if _BeforeTorchvision.library is not None:
            return
        import torch

        # Kept alive: a library's operators go with it.
        _BeforeTorchvision.library = torch.library.Library("torchvision", "DEF")
        for operator in OPERATORS:
            schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            _BeforeTorchvision.library.define(schema)
