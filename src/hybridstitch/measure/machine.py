"""What a measurement's seconds belong to: the processor or GPU that computes."""

import platform
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")


def device_name(device: torch.device | str) -> str:
    """The name of the processor or GPU; on other devices their kind, as in "mps".

    Args:
        device: that computes.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor() if device.type == "cpu" else device.type


def kernels() -> str:
    """Vectors that torch computes with on a CPU, as in "AVX2"."""
    return torch.backends.cpu.get_cpu_capability()


def _processor() -> str:
    """Its model where the system says it, as in "AMD EPYC"; else its architecture."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
