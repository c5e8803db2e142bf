"""The extras of the package: what each is for, the modules it brings, and which of these are not installed."""

from importlib.util import find_spec

EXTRAS = {
    "lora": ("LoRA weights", ("peft",)),
    "eval": ("FID, KID and LPIPS", ("torch_fidelity", "lpips")),
    "cache": ("cache-dit, to compare with", ("cache_dit",)),
    "serve": ("serving", ("fastapi", "uvicorn", "pydantic_settings", "prometheus_client", "python_multipart")),
    "video": ("videos as MP4", ("av",)),
    "ray": ("batches on a Ray cluster, lists from Parquet", ("ray", "pyarrow")),
}


def missing(extra: str) -> list[str]:
    """The modules of an extra that are not installed."""
    return [module for module in EXTRAS[extra][1] if find_spec(module) is None]


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'hybridstitch[{extra}]'"
