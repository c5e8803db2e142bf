"""What `doctor` looks at: versions, devices, attention, weights, a pair's memory; and what mends what is missing."""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Literal

from packaging.requirements import Requirement

from ..mini import mini_folder
from ..mini.parts import TEXT_TOKENS
from ..pair import fits, memory
from ..pair.checks import check_named
from ..pair.source import Source
from .asked import Asked
from .extras import EXTRAS, install, missing
from .flags import in_flags
from .pairs import Pair


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: "ok", "absent" (and not needed to draw) or "broken"."""

    name: str
    state: Literal["ok", "absent", "broken"]
    found: str
    mend: str = ""


def facts() -> dict[str, str]:
    """What this is running on."""
    import torch
    from diffusers.utils.constants import DIFFUSERS_ATTN_BACKEND

    kernels = {"flash": torch.backends.cuda.flash_sdp_enabled(), "math": torch.backends.cuda.math_sdp_enabled()}
    kernels |= {"memory-efficient": torch.backends.cuda.mem_efficient_sdp_enabled()}
    return {
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "cpu": f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads",
        "gpu": "; ".join(_gpus()) or "none",
        "attention": f"{DIFFUSERS_ATTN_BACKEND} (allowed kernels: {', '.join(k for k, on in kernels.items() if on)})",
        "miniature pair": str(mini_folder()),
        "hub": "offline" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else "online",
    }


def checks() -> list[Check]:
    """Everything that can be missing."""
    return [*_packages(), _weights(), *_extras()]


def match_of(asked: Asked) -> bool:
    """Whether there are two named models whose configurations match; nothing is loaded.

    Raises:
        PairError: they do not.
    """
    pair = Pair.of(asked.pair, asked.small)
    return pair.small is not None and check_named(Source(str(pair.folder or pair.large)), Source(pair.small))


def memory_of(asked: Asked, images: int) -> tuple[memory.Need, int, list[str]]:
    """What a pair needs, what its device has, in bytes, and what would fit where it does not; nothing is loaded.

    Args:
        asked: the pair, size, device and dtype.
        images: drawn at once.

    Raises:
        HybridStitchError: no such pair, or a size it cannot draw.
    """
    pair = Pair.of(asked.pair, asked.small)
    limits = pair.limits()
    size = None if limits is None else limits.check(asked.size, asked.frames)
    if limits is None and asked.size is not None:
        size = (asked.size[1], asked.size[0]) if asked.frames is None else (asked.frames, asked.size[1], asked.size[0])
    element = 4 if asked.dtype == "float32" else 2
    known = memory.outline(str(pair.folder or pair.large), pair.small, element_bytes=element)
    need = known.need(size, images=images, text_tokens=TEXT_TOKENS if pair.mini else None)
    there = memory.capacity(asked.device)
    size, short = size or known.native, fits.lasting(need) > there >= sum(need.weights.values())
    ways = fits.advice(known, asked.device, size, images=images, kv_bytes=None, branches=2) if short and size else ()
    return need, there, [in_flags(way) for way in ways]


def _gpus() -> Iterator[str]:
    import torch

    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        yield f"cuda:{index} {about.name}, {about.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        yield "mps"


def _packages() -> Iterator[Check]:
    """Each package hybridstitch needs, against the range it was tested with."""
    try:
        needed = [Requirement(text) for text in requires("hybridstitch") or ()]
    except PackageNotFoundError:
        yield Check("hybridstitch", "broken", "is not installed", "pip install -e .")
        return
    yield Check("hybridstitch", "ok", version("hybridstitch"))
    for need in needed:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(need.name)
        except PackageNotFoundError:
            yield Check(need.name, "broken", "is not installed", f"pip install '{need.name}{need.specifier}'")
            continue
        if need.specifier.contains(found, prereleases=True):
            yield Check(need.name, "ok", found)
        else:
            mend = f"pip install '{need.name}{need.specifier}'"
            yield Check(need.name, "broken", f"{found} is outside {need.specifier}", mend)


def _weights() -> Check:
    folder = mini_folder()
    files = [
        "model_index.json",
        *(f"{part}/config.json" for part in ("transformer", "small", "vae", "text_encoder", "text_encoder_2")),
    ]
    lacking = [name for name in files if not (folder / name).is_file()]
    if lacking:
        mend = "pip install --force-reinstall hybridstitch, or train it: python -m hybridstitch.mini.train all"
        return Check("miniature pair", "broken", f"{', '.join(lacking)} not in {folder}", mend)
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    return Check("miniature pair", "ok", f"{size / 1e6:.0f} MB of weights")


def _extras() -> Iterator[Check]:
    for extra, (what, modules) in EXTRAS.items():
        absent = missing(extra)
        if absent:
            yield Check(what, "absent", f"without {', '.join(absent)}", install(extra))
        else:
            yield Check(what, "ok", ", ".join(f"{module} {version(module)}" for module in modules))
