"""What a measurement was made on and with, written beside every result."""

import os
import platform
import subprocess
import sys
from typing import Any

import diffusers
import torch

import hybridstitch


def machine() -> dict[str, Any]:
    """Hardware, versions, commit and command of the running process, as a JSON object."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "commit": commit.stdout.strip(),
        "device": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "hybridstitch": hybridstitch.__version__,
    }
