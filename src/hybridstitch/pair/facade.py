"""Two transformers that look like one to diffusers: what pipelines and users ask of a transformer besides drawing.

An explicit list of attributes is the large model's; everything else must be asked of `.large` or `.small`. Saving
writes `large/`, `small/` and the policy side by side.
"""

import json
import os
import warnings
from abc import abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import diffusers

from ..compat import ModelMixin
from ..disk import files as disk
from ..errors import StitchError, StitchWarning
from .words import OwnWords

CONFIG = "config.json"
BOTH = ("large", "small")
WORDS = "words"
DELEGATED = (
    *("add_adapter", "active_adapters", "delete_adapters", "disable_adapters", "disable_lora", "enable_adapters"),
    *("enable_lora", "fuse_lora", "peft_config", "save_lora_adapter", "set_adapter", "set_adapters", "unfuse_lora"),
    *("unload_lora", "_hf_peft_config_loaded", "attn_processors", "inner_dim", "out_channels", "pos_embed"),
    *("num_layers", "encoder_hid_proj", "enable_lora_hotswap", "visual_cond"),
)


class Facade(ModelMixin):
    """A large model and a small one in the place of a transformer.

    Attributes:
        large: the pipeline's own transformer.
        small: the model that draws the rest.
        words: what the small model is told, if it has text encoders of its own.
    """

    _group_offload_block_modules = BOTH
    large: ModelMixin
    small: ModelMixin
    words: OwnWords | None = None

    def __init__(self, large: ModelMixin, small: ModelMixin) -> None:
        """Seat two models.

        Args:
            large: the large transformer.
            small: the small transformer.
        """
        super().__init__()
        self.large, self.small = large, small
        self._no_split_modules = large._no_split_modules
        self._warned: set[str] = set()

    @property
    @abstractmethod
    def saved_policy(self) -> str:
        """Who draws what, as it can be read again."""

    @abstractmethod
    def asked_of_large(self) -> None:
        """Called before anything is asked of the large model."""

    @property
    def config(self) -> Any:
        """The large model's configuration, which pipelines read sizes and channels from."""
        return self.large.config

    def cache_context(self, name: str, **where: Any) -> AbstractContextManager[None]:
        """What pipelines say of a call ("cond", "uncond"), passed on to the large model."""
        return self.large.cache_context(name, **where)  # type: ignore[operator]

    def load_lora_adapter(self, *args: Any, **kwargs: Any) -> Any:
        """Load a LoRA into the large model (a LoRA fits one width), and say so once."""
        self.warn(
            "this LoRA reaches the large model only; give the small one its own with "
            "pipe.transformer.small.load_lora_adapter(...)"
        )
        self.asked_of_large()
        return self.large.load_lora_adapter(*args, **kwargs)  # type: ignore[operator]

    def _load_ip_adapter_weights(self, *args: Any, **kwargs: Any) -> None:
        raise StitchError("IP-Adapter cannot be stitched yet; `unstitch(pipe)` before loading one")

    def set_attn_processor(self, processor: Any) -> None:
        """Refused: the processors of a stitched model keep keys and values."""
        raise StitchError(
            "the attention processors of a stitched model cannot be replaced; `unstitch(pipe)` first, or set those of "
            "pipe.transformer.small"
        )

    def fuse_qkv_projections(self) -> None:
        """Refused: the keys and values of a stitched model are kept one by one."""
        raise StitchError(
            "the projections of a stitched model cannot be fused; `unstitch(pipe)` first, or fuse those of "
            "pipe.transformer.small"
        )

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *args: Any,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str = "10GB",
        **options: Any,
    ) -> None:
        """Write `large/`, `small/`, the policy, and text encoders of the small one's own, for `open_pair(folder)`.

        Options as diffusers' own.

        Raises:
            StitchError: the policy is of one run only, and cannot be read again.
        """
        policy = self.saved_policy
        if policy.partition(":")[0].partition(" ")[0] == "replay":
            raise StitchError(
                f"the policy is a {policy}, which belongs to one run and cannot be read again; set another before "
                "saving, as in pipe.transformer.policy = 'large', and save the trace by itself"
            )
        folder = Path(save_directory)
        for name in BOTH:
            model: Any = getattr(self, name)
            model.save_pretrained(
                folder / name, *args, safe_serialization=safe_serialization, variant=variant,
                max_shard_size=max_shard_size, **options,
            )  # fmt: skip
        saved: dict[str, Any] = {"_class_name": type(self).__name__, "policy": policy}
        if self.words is not None:
            self.words.save(folder / WORDS, safe_serialization=safe_serialization, variant=variant)
            saved[WORDS] = {"guidance": self.words.guidance, "negative": self.words.negative}
        disk.keep(folder / CONFIG, json.dumps(saved, indent=2).encode())

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> Self:
        """Read what `save_pretrained` wrote; options as diffusers' own."""
        folder = Path(pretrained_model_name_or_path) / (options.pop("subfolder", None) or "")
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        policy = config["policy"]
        if policy.startswith("replay of "):  # written by 0.1
            warnings.warn(
                f"this pair was saved under a {policy}, which cannot be loaded; 'large' is used instead",
                StitchWarning,
                2,
            )
            policy = "large"
        large, small = (_model(folder / name, **options) for name in BOTH)
        stitched = cls(large, small, policy)  # type: ignore[call-arg]
        if WORDS in config:
            kept = {name: options[name] for name in ("dtype", "torch_dtype", "variant") if options.get(name)}
            stitched.words = OwnWords.load(folder / WORDS, **config[WORDS], **kept)
        return stitched

    def warn(self, text: str) -> None:
        """Say it once, whatever its numbers."""
        kind = text.split(":")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(text, StitchWarning, stacklevel=3)

    def __getattr__(self, name: str) -> Any:
        if name in DELEGATED:
            self.asked_of_large()
            return getattr(self.large, name)
        return super().__getattr__(name)


def _model(folder: Path, **options: Any) -> Any:
    """A transformer of any class that diffusers has."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return getattr(diffusers, config["_class_name"]).from_pretrained(folder, **options)
