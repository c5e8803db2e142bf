"""Where a pipeline or a model lies, and what can be read there without loading it: configurations, and how many bytes
its weights take.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import PairError

SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}  # else 1
FLOATS = ("F64", "F32", "F16", "BF16")  # what a dtype asked for applies to
WEIGHTS = r"(diffusion_pytorch_model|model){variant}(-\d+-of-\d+)?\.safetensors"
INDEX = "model_index.json"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a pipeline or a model lies: a folder, or a hub id, of which only configurations and headers are read.

    Attributes:
        name: the folder or hub id.
        hub: for configurations, options of `hf_hub_download`: token, revision, cache_dir, local_files_only.
    """

    name: str
    hub: Mapping[str, Any] = field(default_factory=dict)

    @property
    def here(self) -> bool:
        """Whether it is a folder."""
        return Path(self.name).is_dir()

    def config(self, path: str) -> dict[str, Any] | None:
        """A JSON file of it, or None where there is none; of a hub id as it lies in the cache, where it does."""
        file = Path(self.name) / path if self.here else self._fetched(path)
        return json.loads(file.read_text(encoding="utf-8")) if file is not None and file.is_file() else None

    def weights(self, part: str, element_bytes: int, variant: str | None = None) -> int:
        """Bytes of a part's weights, once loaded.

        Args:
            part: its folder; "" for the source itself.
            element_bytes: of floating-point numbers in the dtype they are loaded in.
            variant: as diffusers', "fp16".

        Raises:
            PairError: no safetensors files, or a damaged one.
        """
        infix = re.escape(f".{variant}") if variant else ""
        pattern = re.compile(re.escape(f"{part}/" if part else "") + WEIGHTS.replace("{variant}", infix))
        files = [path for path in self._files(part) if pattern.fullmatch(path)]
        if not files:
            raise PairError(
                f"no safetensors files of {part or 'the model'} in {self.name}; its size is known once loaded"
            )
        total = 0
        for kind, shape in (tensor for path in files for tensor in self._tensors(path)):
            total += prod(shape) * (element_bytes if kind in FLOATS else SIZES.get(kind, 1))
        return total

    def _fetched(self, path: str) -> Path | None:
        """A file of the hub, asked for only where the cache does not know it: one that is away is tried for seconds."""
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError

        where = {name: self.hub[name] for name in ("cache_dir", "revision") if name in self.hub}
        known = try_to_load_from_cache(self.name, path, **where)
        if known is not None:
            return Path(known) if isinstance(known, str) else None  # a mark: the hub has no such file
        try:
            return Path(hf_hub_download(self.name, path, **self.hub))
        except EntryNotFoundError:
            return None

    def _files(self, part: str) -> list[str]:
        if self.here:
            folder = Path(self.name)
            return sorted(path.relative_to(folder).as_posix() for path in (folder / part).glob("*.safetensors"))
        from huggingface_hub import HfApi

        return HfApi().list_repo_files(self.name)

    def _tensors(self, path: str) -> Iterator[tuple[str, list[int]]]:
        """Dtype and shape of each tensor of a file."""
        if self.here:
            try:
                with safe_open(Path(self.name) / path, framework="numpy") as file:
                    slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118
                    yield from ((tensor.get_dtype(), tensor.get_shape()) for tensor in slices)
            except SafetensorError as error:
                raise PairError(f"{Path(self.name) / path} is damaged ({error}); download or save it again") from error
        else:
            from huggingface_hub import HfApi

            tensors = HfApi().parse_safetensors_file_metadata(self.name, path).tensors
            yield from ((t.dtype, t.shape) for t in tensors.values())
