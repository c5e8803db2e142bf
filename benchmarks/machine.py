"""What a measurement was made on and with, written beside every result."""

import os
import platform
import subprocess
import sys
from typing import Any

import diffusers
import torch

import hybridstitch
from hybridstitch.measure.machine import device_name


def machine() -> dict[str, Any]:
    """Hardware, versions, commit and command of the running process, as a JSON object."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "commit": commit.stdout.strip(),
        "device": device_name("cuda" if torch.cuda.is_available() else "cpu"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "hybridstitch": hybridstitch.__version__,
    }
