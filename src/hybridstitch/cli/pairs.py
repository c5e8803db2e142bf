"""The pair a user named: what it can draw, read from its configurations, and how it is opened.

Folders are looked at before anything is loaded; of a hub id nothing is known before it is opened.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..batch.heap import keep_freed_memory
from ..drawing.engine import PLAIN, Engine
from ..errors import PairError
from ..families.known import facts_of
from ..mini import mini_folder
from ..mini.opened import MINI_POLICY, is_mini, open_mini
from ..pair.asking import check_asked
from ..pair.current import check_masks
from ..pair.fits import check_fits
from ..pair.limits import Limits, limits_of, pipeline_named
from ..pair.memory import outline
from ..pair.stitching import DEFAULT, open_pair
from ..policies.parse import parse
from ..policies.policy import Policy
from .asked import Asked, BadInput
from .flags import in_flags
from .texts import T5_TOKENS, check_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A pair that was named.

    Attributes:
        large, small: as named.
        folder: where the large one (or all) lies, None for a hub id.
        mini: whether it is a miniature pair.
    """

    large: str
    small: str | None
    folder: Path | None
    mini: bool

    @classmethod
    def of(cls, large: str, small: str | None) -> "Pair":
        """Look at a name.

        Raises:
            BadInput: a folder that is no pair, or one model where two are needed.
        """
        if large == "mini":
            if small is not None:
                raise BadInput("--pair mini brings its small model; leave --small out")
            folder = mini_folder()
            if not (folder / "model_index.json").is_file():
                raise BadInput(
                    f"the miniature pair's weights are not in {folder}; install hybridstitch again, or train them with "
                    "`python -m hybridstitch.mini.train all`"
                )
            return cls(large=large, small=None, folder=folder, mini=True)
        folder = Path(large)
        if not folder.exists() and large.count("/") == 1 and not large.startswith((".", "~")):
            if small is None:
                raise BadInput(f"--pair {large} names one model; a pair is two: --pair {large} SMALL")
            return cls(large=large, small=small, folder=None, mini=False)
        if not (folder / "model_index.json").is_file():
            what = "is not a pair: it has no model_index.json" if folder.is_dir() else "is no folder"
            raise BadInput(f"--pair {large} {what}; name mini, a saved pair, or two diffusers pipelines LARGE SMALL")
        if "transformer" not in _config(folder, "model_index.json"):
            raise BadInput(
                f"--pair {large} is not a pair: it has no transformer; name mini, a saved pair, "
                "or two diffusers pipelines LARGE SMALL"
            )
        mini = small is None and is_mini(folder)
        saved = (folder / "transformer" / "large").is_dir()
        if small is None and not mini and not saved:
            raise BadInput(f"--pair {large} holds one model; a pair is two: --pair {large} SMALL")
        return cls(large=large, small=small, folder=folder, mini=mini)

    def from_anywhere(self) -> "Pair":
        """The same pair, named so that a process in another folder finds it."""
        large = self.large if self.folder is None or self.large == "mini" else str(self.folder.absolute())
        small = self.small
        return replace(
            self, large=large, small=str(Path(small).absolute()) if small and Path(small).is_dir() else small
        )

    @property
    def models(self) -> dict[str, str]:
        """What the names stand for now."""
        return self.known_as({})

    def known_as(self, records: Mapping[str, str]) -> dict[str, str]:
        """What the names stand for now, as earlier records say it where they still hold.

        Args:
            records: by role, as `models` gave them, in this release or an earlier one.
        """
        from ..report.identity import known_as

        names = {"large": str(self.folder or self.large)} | ({} if self.small is None else {"small": self.small})
        return {role: known_as(name, records.get(role)) for role, name in names.items()}

    @property
    def policy(self) -> Policy:
        """Who draws what when nobody says: a saved pair's policy, the miniature's, or the library's default."""
        if self.folder is not None and (self.folder / "transformer" / "large").is_dir():
            return parse(_config(self.folder / "transformer")["policy"])
        return MINI_POLICY if self.mini else DEFAULT

    def limits(self) -> Limits | None:
        """What it can draw; None for a hub id."""
        if self.folder is None:
            return None
        pipeline = pipeline_named(_config(self.folder, "model_index.json")["_class_name"])
        transformer, vae = _large(self.folder), self.folder / "vae"
        return Limits.of(pipeline, transformer["_class_name"], transformer, _config(vae) if vae.is_dir() else {})

    def check_asked(self, policies: Iterable[Policy], *, negative: bool = False) -> None:
        """Refuse what a folder's pair cannot be asked for.

        Args:
            policies: who draws what.
            negative: whether it is told what not to draw.

        Raises:
            PairError: as `asking.check_asked`.
            StitchError: masks of a class, or of two experts, that draw whole steps.
        """
        if self.folder is None:
            return
        index, facts = _config(self.folder, "model_index.json"), facts_of(_large(self.folder)["_class_name"])
        check_asked(pipeline_named(index["_class_name"]), negative=negative)
        experts = (index.get("transformer_2") or [None])[0] is not None
        for policy in policies:
            if facts is not None:
                check_masks(policy, facts, experts=experts)

    def check_size(self, size: tuple[int, int] | None, frames: int | None = None, fps: float | None = None) -> None:
        """Refuse a size that a folder's pair cannot draw.

        Args:
            size: width and height in pixels, or None.
            frames, fps: of a video, or None.

        Raises:
            SizeError: as `Limits.check`.
            BadInput: frames a second of a picture.
        """
        limits = self.limits()
        if limits is None:
            return
        limits.check(size, frames)
        if fps is not None and not limits.video:
            raise BadInput(f"--fps {fps:g} was given; this pair draws pictures: leave --fps out")

    def native_size(self) -> tuple[int, int] | None:
        """Width and height of a picture when no size is asked for; None for a hub id."""
        limits = self.limits()
        if limits is None:
            return None
        size = limits.check(None, None)
        return size[-1], size[-2]

    def check_fits(self, asked: Asked, policy: Policy, engine: Engine, *, images: int = 1) -> None:
        """Refuse keys and values that a folder's pair cannot keep on a device.

        Args:
            asked: size, device and dtype.
            policy: who draws what.
            engine: how keys and values are kept.
            images: drawn at once.

        Raises:
            PairError: says what is needed, what there is, and what fits.
        """
        if self.folder is None or not policy.can_mask:
            return
        try:
            known = outline(str(self.folder), self.small, element_bytes=4 if asked.dtype == "float32" else 2)
        except (PairError, KeyError, OSError):
            return  # other weight files, a small model elsewhere, or a class nobody counted
        if not known.facts.masks:
            return
        limits = self.limits()
        assert limits is not None
        branches = 2 if asked.guidance > 1 else 1
        kept = 0 if engine.kv_host and asked.device.startswith("cuda") else engine.kv_bytes
        size = limits.check(asked.size, asked.frames)
        try:
            check_fits(known, asked.device, size, images=images, kv_bytes=kept, branches=branches)
        except PairError as error:
            raise PairError(in_flags(str(error))) from error

    def check_opened(
        self, pipe: Any, size: tuple[int, int] | None, frames: int | None, texts: Mapping[str, str]
    ) -> tuple[int, ...]:
        """What could not be checked before: the size, and for a hub id the texts.

        Args:
            pipe: the opened pair.
            size: asked for, or None.
            frames: of a video, or None.
            texts: as `check_text`.

        Returns:
            (height, width) in pixels, of a video (frames, height, width).

        Raises:
            HybridStitchError: as `check_size` and `check_text`.
        """
        if self.folder is None:
            third = getattr(pipe, "tokenizer_3", None)
            if third is not None:
                check_tokens(third, texts, T5_TOKENS)
            elif hasattr(pipe, "tokenizer_3"):  # Stable Diffusion 3's, without the third
                check_tokens(pipe.tokenizer, texts, pipe.tokenizer.model_max_length)
        return limits_of(pipe).check(size, frames)

    def check_text(self, texts: Mapping[str, str]) -> None:
        """Refuse texts that the tokenizer of a folder would cut off.

        Args:
            texts: what each text is ("prompt 1"), and the text.

        Raises:
            BadInput: says how many tokens there are and how many fit.
        """
        if self.folder is None or not (self.folder / "tokenizer").is_dir():
            return
        index = _config(self.folder, "model_index.json")
        if "tokenizer_3" not in index:
            return  # others cut at a length of their own
        from transformers import AutoTokenizer

        if index.get("tokenizer_3", [None])[0] is not None and (self.folder / "tokenizer_3").is_dir():
            check_tokens(AutoTokenizer.from_pretrained(self.folder / "tokenizer_3"), texts, T5_TOKENS)
        else:
            tokenizer = AutoTokenizer.from_pretrained(self.folder / "tokenizer")
            check_tokens(tokenizer, texts, tokenizer.model_max_length)

    def open(self, policy: Policy, *, device: str, dtype: str, engine: Engine = PLAIN) -> Any:
        """The stitched pipeline, quiet.

        Args:
            policy: who draws what.
            device, dtype: where, and in what precision.
            engine: how the models are run.

        Raises:
            HybridStitchError: as `open_pair`.
        """
        import torch

        kind = getattr(torch, dtype)
        if self.mini:
            if device == "cpu":
                keep_freed_memory()
            pipe = open_mini(policy, engine=engine, device=device, dtype=kind, folder=self.folder)
        else:
            index = {} if self.folder is None else _config(self.folder, "model_index.json")
            thirds = ("text_encoder_3", "tokenizer_3")
            absent: dict[str, Any] = {name: None for name in thirds if index.get(name, [0])[0] is None}
            pipe: Any = open_pair(self.large, self.small, policy, engine, dtype=kind, **absent).to(device)
        pipe.set_progress_bar_config(disable=True)
        return pipe


def _large(folder: Path) -> dict[str, Any]:
    """The large transformer's configuration."""
    inside = folder / "transformer"
    return _config(inside / "large" if (inside / "large").is_dir() else inside)


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder} is not part of a diffusers pipeline: {name} cannot be read ({error})") from error
