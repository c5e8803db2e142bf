"""Scenes as arrays: pictures in [-1, 1], token ids, the map of which object lies where; and the pool of
latents.

The pool holds, for N training scenes: latents (N, 16, 32, 32) float16 as the autoencoder gives them,
object maps (N, 16, 16) uint8 (0 is background, 1 + i the i-th object), and the scenes' keys. Captions are
worded anew each time.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer

from ...disk.files import keep
from ..scenes import SIDE, Scene
from ..words import OBJECTS
from .precision import fastest, multiplied_in

PLACES = {name: place + 1 for place, name in enumerate(OBJECTS)}
LATENT = (16, 32, 32)


def to_tensor(images: list[Image.Image]) -> Tensor:
    """Pictures as (B, 3, H, W) float32 in [-1, 1]."""
    array = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(array).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def tokens(words: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Captions as (B, 24) ids, padded and cut as the pipeline does it."""
    return words(
        captions,
        padding="max_length",
        max_length=words.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def draw(scene: Scene, rng: np.random.Generator, cells: int = 16) -> tuple[Image.Image, np.ndarray]:
    """A picture of the scene and its object map (cells, cells)."""
    seed = int(rng.integers(2**63))
    image = scene.render(np.random.default_rng(seed))
    centres = (np.arange(cells) + 0.5) * SIDE / cells
    layout = np.zeros((cells, cells), np.uint8)
    jittered = np.random.default_rng(seed)
    jittered.uniform(-8, 8)  # the picture's light is drawn first
    for thing, (left, top, side) in zip(scene.things, scene.boxes(jittered), strict=True):
        rows = (centres >= top) & (centres < top + side)
        columns = (centres >= left) & (centres < left + side)
        layout[np.ix_(rows, columns)] = PLACES[thing.name]
    return image, layout


@dataclass(frozen=True, slots=True)
class ScenePool:
    """Encoded training scenes on disk."""

    latents: np.ndarray  # (N, 16, 32, 32) float16
    layouts: np.ndarray  # (N, 16, 16) uint8
    keys: list[str]

    @classmethod
    def open(cls, folder: Path) -> ScenePool:
        """The finished part of the pool in `folder`."""
        done = json.loads((folder / "done.json").read_text())["scenes"]
        keys = (folder / "keys.txt").read_text().splitlines()[:done]
        latents = np.memmap(folder / "latents.f16", np.float16, "r").reshape(-1, *LATENT)[:done]
        layouts = np.memmap(folder / "layouts.u8", np.uint8, "r").reshape(-1, 16, 16)[:done]
        return cls(latents, layouts, keys)

    def __len__(self) -> int:
        return len(self.keys)


@torch.inference_mode()
def make_pool(folder: Path, vae: AutoencoderKL, scenes: int, device: torch.device, batch: int = 64) -> None:
    """Fill the pool up to `scenes` scenes; goes on where an earlier call stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "done.json"
    done = json.loads(record.read_text())["scenes"] if record.exists() else 0
    for name, bytes_each in (("latents.f16", 2 * int(np.prod(LATENT))), ("layouts.u8", 256)):
        with open(folder / name, "ab") as file:
            file.truncate(done * bytes_each)
    listed = (folder / "keys.txt").read_text().splitlines()[:done] if done else []
    (folder / "keys.txt").write_text("".join(key + "\n" for key in listed))
    vae = vae.to(device, memory_format=torch.channels_last).eval()  # pyright: ignore
    start, before, dtype = time.monotonic(), done, fastest(device)
    while done < scenes:
        rng = np.random.default_rng((7, done))
        batch_scenes = [Scene.sample(rng) for _ in range(batch)]
        images, layouts = zip(*(draw(scene, rng) for scene in batch_scenes), strict=True)
        pixels = to_tensor(list(images)).to(device, memory_format=torch.channels_last)
        with multiplied_in(dtype, device):
            latents = vae.encode(pixels).latent_dist.mode()  # pyright: ignore
        with open(folder / "latents.f16", "ab") as file:
            file.write(latents.to(torch.float16).contiguous().cpu().numpy().tobytes())
        with open(folder / "layouts.u8", "ab") as file:
            file.write(np.stack(layouts).tobytes())
        with open(folder / "keys.txt", "a") as file:
            file.write("".join(scene.key + "\n" for scene in batch_scenes))
        done += batch
        keep(record, json.dumps({"scenes": done}).encode())
        if done % (batch * 20) == 0:
            print(f"{done} scenes, {(done - before) / (time.monotonic() - start):.0f} scenes/s", flush=True)
