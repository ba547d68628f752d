"""A made-up GB200 node: what an asker runs before an engine is loaded, on a machine without a GPU.

`PYTHON -c "TEXT OF THIS FILE, THEN THE ASKER'S" PROGRAM` makes torch, vLLM and SGLang answer as on four
GB200, so that they make their configurations as there. Nothing of an engine's parser, checks or configuration
is replaced; its kernels, which need a GPU's driver to be loaded, are empty shells.

    MTPBENCH_PARSERS_MODELS    the folder that relative paths of models begin in
"""

import importlib.abc
import importlib.machinery
import os
import sys
import types
from unittest.mock import MagicMock

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", VLLM_NO_USAGE_STATS="1")
os.environ["VLLM_LOGGING_LEVEL"] = "WARNING"
SGLANG_KERNELS = (
    *("cutlass", "deep_ep", "deep_gemm", "deepgemm", "flash_attn", "flash_attn_interface", "flash_mla"),
    *("flashinfer", "humming", "nvshmem", "quack", "sgl_kernel", "sglang_kernel", "tilelang"),
)
VLLM_KERNELS = (
    *("vllm._C", "vllm._C_stable_libtorch", "vllm._moe_C", "vllm._moe_C_stable_libtorch"),
    *("vllm.vllm_flash_attn._vllm_fa2_C", "vllm.vllm_flash_attn._vllm_fa3_C"),
)


class Shell(types.ModuleType):
    """A module whose every attribute is a mock."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, made := MagicMock(name=f"{self.__name__}.{name}"))
        return made


class Shells(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds shells for packages that are not there, and all below them."""

    def __init__(self, *packages):
        self.packages = packages

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.packages:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Shell(spec.name)

    def exec_module(self, module):
        pass


class Properties:
    """What CUDA says of a GB200."""

    name, major, minor, total_memory, multi_processor_count = "NVIDIA GB200", 10, 0, 189471 << 20, 148
    warp_size, L2_cache_size, gcnArchName = 32, 132 << 20, ""  # noqa: N815
    max_threads_per_multi_processor, regs_per_multiprocessor = 2048, 65536
    shared_memory_per_multiprocessor, shared_memory_per_block_optin = 233472, 232448


def make_up_cuda():
    import torch

    free = (185 << 30, 185 << 30)
    answers = {"is_available": True, "device_count": 4, "current_device": 0, "mem_get_info": free}
    answers |= {"get_device_capability": (10, 0), "get_device_name": Properties.name}
    answers |= {"get_device_properties": Properties()}
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda device=None, answer=answer: answer)
    torch.version.cuda = "13.0"


def make_up_vllm():
    for name in VLLM_KERNELS:
        sys.modules[name] = types.ModuleType(name)
    import vllm.platforms
    import vllm.platforms.cuda as cuda
    from vllm.platforms.interface import DeviceCapability

    class MadeUp(cuda.NonNvmlCudaPlatform):
        @classmethod
        def get_device_capability(cls, device_id=0):
            return DeviceCapability(major=10, minor=0)

        @classmethod
        def import_kernels(cls):
            pass

        @classmethod
        def device_count(cls):
            return 4

    vllm.platforms._current_platform = MadeUp()
    import vllm._custom_ops as operators
    import vllm.config.vllm as configuration
    import vllm.model_executor.models.registry as registry

    # A GPU's vLLM has Triton, without which it takes its first model runner.
    configuration.HAS_TRITON = True
    for name in dir(operators):
        if "support" in name and callable(getattr(operators, name)):
            setattr(operators, name, lambda *args, **options: True)
    # What was found out about a model is kept in a file; the module that writes it needs kernels.
    registry._LazyRegisteredModel._save_modelinfo_to_cache = lambda *args, **options: None
    # Another process would be asked about each model, so that this one does not wake CUDA.
    registry._run_in_subprocess = lambda question: question()


def declare_operators():
    import torch

    # PyPI's torchvision expects that its extension for CUDA has declared these.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    Shells.kept = library


def make_up_sglang():
    sys.meta_path.append(Shells(*SGLANG_KERNELS))
    from transformers.models.auto.configuration_auto import _LazyConfigMapping

    register = _LazyConfigMapping.register
    # An older SGLang meets a newer transformers, which has models that it brings itself.
    _LazyConfigMapping.register = lambda self, key, value, exist_ok=False: register(self, key, value, True)


def make_up(program):
    os.chdir(os.environ["MTPBENCH_PARSERS_MODELS"])
    if program in ("vllm", "dynamo.vllm", "sglang", "dynamo.sglang"):
        make_up_cuda()
    if program in ("vllm", "dynamo.vllm"):
        make_up_vllm()
    if program in ("sglang", "dynamo.sglang", "sglang_router"):
        declare_operators()
    if program in ("sglang", "dynamo.sglang"):
        make_up_sglang()
    if program == "dynamo.trtllm":  # its wheel is on NVIDIA's own index only
        sys.meta_path.append(Shells("tensorrt_llm"))


make_up(sys.argv[1])
