"""Pictures → features, one tower each: the miniature CLIP, Inception for FID, and any CLIP of transformers.

Every tower takes uint8 pictures, resizes at most once, from uint8, runs in float32 and returns float64, (N, D). Weights
come from a path or the hub; the miniature CLIP's are in the package. Its scores are named for it (FD-mini, KID-mini,
CLIP-mini), because they say nothing about FID.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .pictures import Picture, ScoreError, digest_of

CLIP = "openai/clip-vit-large-patch14"
MEAN, SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training pictures
BATCH = 32  # pictures
EVAL = "pip install 'hybridstitch[eval]', with the torchvision that belongs to this torch"


class Tower(Protocol):
    """Pictures → features."""

    @property
    def numerics(self) -> str:
        """Model, resize, dtype and scale of the features."""
        ...

    def features(self, pictures: Sequence[Picture]) -> Tensor:
        """(N, D), float64."""
        ...


class TextTower(Tower, Protocol):
    """A tower whose features of pictures and of prompts lie in one space."""

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """(N, D), float64."""
        ...


@dataclass(frozen=True, slots=True)
class MiniTower:
    """The miniature CLIP; features have length √D, so that KID's kernel is (cosine + 1)³.

    Attributes:
        clip: `mini.score.MiniClip`.
    """

    clip: Any

    @classmethod
    def load(cls, folder: str | Path | None = None, device: str | torch.device = "cpu") -> "MiniTower":
        """From a pipeline folder with `clip/`; the shipped one by default."""
        from ..mini.score import MiniClip

        return cls(MiniClip.load(None if folder is None else Path(folder), device))

    @property
    def numerics(self) -> str:
        return "miniature CLIP, bicubic to 128 px from uint8, float32, features of length √128"

    def features(self, pictures: Sequence[Picture]) -> Tensor:
        return self._scaled(self.clip.image_features([Image.fromarray(picture) for picture in pictures]))

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Of captions, (N, D)."""
        return self._scaled(self.clip.text_features(prompts))

    def layers(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """The patches' activations after each layer, (N, patches, width) each, for LPIPS-mini."""
        pixels = torch.from_numpy(np.stack([_resized(p, (128, 128)) for p in pictures])).permute(0, 3, 1, 2)
        tower = self.clip.tower
        with torch.inference_mode():
            states = tower(pixels.to(tower.device).float() / 127.5 - 1, output_hidden_states=True).hidden_states
        return [state[:, 1:] for state in states[1:]]

    def _scaled(self, features: Tensor) -> Tensor:
        return features.double() * features.shape[1] ** 0.5


@dataclass(frozen=True, slots=True)
class Inception:
    """The network of FID, torch-fidelity's: the TensorFlow weights, its resize to 299, 2048 pooled features.

    Attributes:
        network: torch-fidelity's extractor.
        source: where its weights came from.
    """

    network: Any
    source: str

    @classmethod
    def load(cls, weights: str | Path | None = None, device: str | torch.device = "cpu") -> "Inception":
        """From torch-fidelity's weights file, or its download.

        Raises:
            ScoreError: torch-fidelity, or the weights, cannot be had.
        """
        check_weights("Inception", weights)
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import (  # pyright: ignore[reportMissingImports]
                FeatureExtractorInceptionV3,
            )
        except (ImportError, RuntimeError) as error:  # torchvision of another torch: a RuntimeError
            raise ScoreError(
                f"FID needs torch-fidelity, which cannot be imported ({first_line(error)}): {EVAL}"
            ) from error
        path = None if weights is None else str(weights)
        try:
            network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=path)
        except (OSError, RuntimeError) as error:
            raise ScoreError(
                f"the Inception weights cannot be loaded ({first_line(error)}): download torch-fidelity's "
                "weights-inception-2015-12-05-6726825d.pth and give its path, weights={'inception': PATH}"
            ) from error
        return cls(network.to(device).eval(), "torch-fidelity's" if weights is None else str(weights))

    @property
    def numerics(self) -> str:
        return f"Inception ({self.source}), TensorFlow's bilinear to 299 px from uint8, float32"

    @torch.inference_mode()
    def features(self, pictures: Sequence[Picture]) -> Tensor:
        device = next(self.network.parameters()).device
        batches = [np.stack(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)]
        return torch.cat(
            [self.network(torch.from_numpy(b).permute(0, 3, 1, 2).to(device))[0].double() for b in batches]
        )


@dataclass(frozen=True, slots=True)
class Clip:
    """A CLIP of transformers; unit features.

    Attributes:
        vision, text, tokenizer: its parts.
        source: path or hub id.
    """

    vision: Any
    text: Any
    tokenizer: Any
    source: str

    @classmethod
    def load(cls, source: str | Path | None = None, device: str | torch.device = "cpu") -> "Clip":
        """From a folder or the hub.

        Raises:
            ScoreError: it cannot be had.
        """
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

        name = str(source or CLIP)
        try:
            vision: Any = CLIPVisionModelWithProjection.from_pretrained(name, dtype=torch.float32)
            text: Any = CLIPTextModelWithProjection.from_pretrained(name, dtype=torch.float32)
            tokenizer = CLIPTokenizer.from_pretrained(name)
        except (OSError, ValueError, RuntimeError) as error:
            raise ScoreError(
                f"the CLIP {name!r} cannot be loaded ({first_line(error)}): give a folder, weights={{'clip': PATH}}"
            ) from error
        return cls(vision.to(device).eval(), text.to(device).eval(), tokenizer, name)

    @property
    def numerics(self) -> str:
        side = self.vision.config.image_size
        return f"{self.source}, short side bicubic to {side} px from uint8, centre crop, float32, unit features"

    @torch.inference_mode()
    def features(self, pictures: Sequence[Picture]) -> Tensor:
        side, device = self.vision.config.image_size, self.vision.device
        mean, spread = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, SPREAD))
        found = []
        for start in range(0, len(pictures), BATCH):
            pixels = np.stack([_cropped(picture, side) for picture in pictures[start : start + BATCH]])
            scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device).float() / 255
            found.append(F.normalize(self.vision((scaled - mean) / spread).image_embeds, dim=-1).double())
        return torch.cat(found)

    @torch.inference_mode()
    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Of prompts, cut at the tokenizer's longest, (N, D)."""
        found = []
        for start in range(0, len(prompts), BATCH):
            words = self.tokenizer(
                list(prompts[start : start + BATCH]),
                padding="max_length",
                truncation=True,
                max_length=self.text.config.max_position_embeddings,
                return_tensors="pt",
            ).to(self.text.device)
            found.append(F.normalize(self.text(**words).text_embeds, dim=-1).double())
        return torch.cat(found)


@dataclass(frozen=True, slots=True)
class Remembering:
    """A tower that looks at each picture once: metrics and methods share references, and often pictures.

    Attributes:
        tower: what it wraps.
        known: features by the picture's digest.
    """

    tower: Any
    known: dict[bytes, Tensor] = field(default_factory=dict)

    @property
    def numerics(self) -> str:
        return self.tower.numerics

    def features(self, pictures: Sequence[Picture]) -> Tensor:
        names = [digest_of(picture) for picture in pictures]
        missing = {name: picture for name, picture in zip(names, pictures, strict=True) if name not in self.known}
        if missing:
            self.known.update(zip(missing, self.tower.features(list(missing.values())), strict=True))
        return torch.stack([self.known[name] for name in names])

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """See the tower."""
        return self.tower.text_features(prompts)


def check_weights(what: str, path: str | Path | None) -> dict[str, Tensor]:
    """Refuse a weights file that is missing, or is more than tensors; returns what it holds.

    Raises:
        ScoreError: see above.
    """
    if path is None:
        return {}
    if not Path(path).is_file():
        raise ScoreError(f"there is no file {path} with {what} weights")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises anything
        raise ScoreError(f"{path} holds no {what} weights: not a plain state dict ({first_line(error)})") from error


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _resized(picture: Picture, size: tuple[int, int]) -> Picture:
    return np.asarray(Image.fromarray(picture).resize(size))


def _cropped(picture: Picture, side: int) -> Picture:
    """Short side to `side`, bicubic, then the middle (side, side, 3)."""
    image = Image.fromarray(picture)
    factor = side / min(image.size)
    wide, high = (max(side, round(length * factor)) for length in image.size)
    left, top = (wide - side) // 2, (high - side) // 2
    return np.asarray(image.resize((wide, high), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side)))
