"""The stages of the recipe, and the folder they share: `WORK/parts/NAME.pt` holds finished weights,
`WORK/runs` the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from .. import parts, show
from ..scenes import heldout_prompts
from . import keep
from .clip import ClipTask, retrieval
from .data import ScenePool, make_pool
from .export import export
from .flow import FlowTask, start_at_zero
from .judge import JudgeTask
from .loop import TrainingRecipe, train
from .vae import VaeTask, measure_latents

RECIPES = {
    "vae": TrainingRecipe(images=20_000, batch=8, other_rate=2e-3, ema=0.99),
    "clip": TrainingRecipe(images=160_000, batch=128, ema=0.995, matrix_rate=3e-3),
    "judge": TrainingRecipe(images=300_000, batch=128, matrix_rate=3e-3, ema=0.995),
    "pool": TrainingRecipe(images=48_000),
    "decoder": TrainingRecipe(images=40_000, batch=8, other_rate=1e-3, ema=0.998),
    "large": TrainingRecipe(images=150_000, batch=32),
    "small": TrainingRecipe(images=100_000, batch=32),
}


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where the recipe works, and how."""

    work: Path
    device: torch.device
    from_weights: bool = False
    compile: bool = False
    follow_large: bool = False  # the small model learns the large one's velocity

    def part(self, name: str) -> Path:
        """Finished weights of a part."""
        return self.work / "parts" / f"{name}.pt"

    def load(self, name: str) -> dict[str, Any]:
        """The finished weights of a part; says which stage makes them if they are missing."""
        state = keep.load(self.part(name), self.device)
        if state is None:
            raise FileNotFoundError(f"{self.part(name)} is missing; run the stage that makes {name!r} first")
        return state

    def vae(self) -> AutoencoderKL:
        """The trained autoencoder, with its scale and shift."""
        state = self.load("vae")
        vae = parts.autoencoder()
        vae.load_state_dict(state["weights"])
        vae.register_to_config(scaling_factor=state["scaling_factor"], shift_factor=state["shift_factor"])
        return vae.to(self.device).eval()  # pyright: ignore

    def text_encoders(self) -> tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection]:
        """Both trained text encoders."""
        return self._text_encoder("text"), self._text_encoder("text_2")

    def _text_encoder(self, name: str) -> CLIPTextModelWithProjection:
        encoder = parts.text_encoder(parts.tokenizer())
        encoder.load_state_dict(self.load(name))
        return encoder.to(self.device).eval()  # pyright: ignore

    def image_tower(self) -> CLIPVisionModelWithProjection:
        """The picture side of the miniature CLIP, as the contrastive stage left it."""
        tower = parts.image_tower()
        tower.load_state_dict(self.load("image"))
        return tower.to(self.device).eval()  # pyright: ignore

    def transformer(self, size: str) -> SD3Transformer2DModel:
        """A trained transformer."""
        model = parts.transformer(size)
        model.load_state_dict(self.load(size))
        return model.to(self.device).eval()  # pyright: ignore


def shipped(shop: Workshop, name: str, module: torch.nn.Module) -> None:
    """Put the shipped weights of a part (a folder, or a file without its ending) into `module`, if asked for."""
    if shop.from_weights:
        from safetensors.torch import load_file

        from .. import weights_dir

        (file,) = weights_dir().glob(f"{name}.safetensors" if "/" in name else f"{name}/*.safetensors")
        module.load_state_dict({name: value.float() for name, value in load_file(file).items()})


def train_vae(shop: Workshop, recipe: TrainingRecipe) -> None:
    """The autoencoder, then the scale and shift of its latents."""
    task = VaeTask(shop.device)
    vae = task.modules["vae"]
    shipped(shop, "vae", vae)
    values = train(task, recipe, shop.work / "runs/vae.pt", shop.device)
    task.modules.load_state_dict(values)
    mean, deviation, psnr = measure_latents(vae, shop.device)  # pyright: ignore[reportArgumentType]
    print(f"latents {mean:.4f} +- {deviation:.4f}, reconstruction {psnr:.2f} dB", flush=True)
    state = {"weights": vae.state_dict(), "scaling_factor": 1 / deviation, "shift_factor": mean, "psnr": psnr}
    keep.save(state, shop.part("vae"))


def train_decoder(shop: Workshop, recipe: TrainingRecipe) -> None:
    """The decoder alone, a little longer; scale and shift stay."""
    state = shop.load("vae")
    task = VaeTask(shop.device, shop.vae())
    task.modules.load_state_dict(train(task, recipe, shop.work / "runs/decoder.pt", shop.device))
    vae = task.modules["vae"]
    psnr = measure_latents(vae, shop.device)[2]  # pyright: ignore[reportArgumentType]
    print(f"reconstruction {state['psnr']:.2f} -> {psnr:.2f} dB", flush=True)
    if psnr > state["psnr"]:
        keep.save({**state, "weights": vae.state_dict(), "psnr": psnr}, shop.part("vae"))


def train_clip(shop: Workshop, recipe: TrainingRecipe) -> None:
    """The picture tower and both text encoders."""
    task = ClipTask(shop.device)
    for name, folder in (("text", "text_encoder"), ("text_2", "text_encoder_2"), ("image", "clip/model")):
        shipped(shop, folder, task.modules[name])
    values = train(task, recipe, shop.work / "runs/clip.pt", shop.device)
    task.modules.load_state_dict(values)
    for split in ("heldout", "unseen_pairs"):
        print(split, "right caption among 100:", retrieval(task, split), flush=True)
    for name in ("text", "text_2", "image"):
        keep.save(task.modules[name].state_dict(), shop.part(name))


def train_judge(shop: Workshop, recipe: TrainingRecipe) -> None:
    """The strict score: the picture tower goes on learning, the text encoders stay."""
    task = JudgeTask(shop.image_tower(), shop.text_encoders(), shop.device)
    shipped(shop, "clip/model", task.modules["image"])
    shipped(shop, "clip/join", task.modules["join"])
    task.find_alike()
    task.modules.load_state_dict(train(task, recipe, shop.work / "runs/judge.pt", shop.device))
    state = {name: task.modules[name].state_dict() for name in ("image", "join")}
    keep.save(state, shop.part("judge"))


def fill_pool(shop: Workshop, recipe: TrainingRecipe) -> None:
    """Latents of training scenes."""
    make_pool(shop.work / "pool", shop.vae(), recipe.images, shop.device)


def train_flow(shop: Workshop, recipe: TrainingRecipe, size: str) -> None:
    """One of the two transformers."""
    model = parts.transformer(size)
    start_at_zero(model)
    shipped(shop, {"large": "transformer", "small": "small"}[size], model)
    vae, encoders = shop.vae(), shop.text_encoders()
    teacher = shop.transformer("large") if shop.follow_large and size == "small" else None
    task = FlowTask(model, ScenePool.open(shop.work / "pool"), encoders, vae, shop.device, shop.compile, teacher)
    held = parts.transformer(size).to(shop.device)  # pyright: ignore[reportArgumentType]

    prompts = heldout_prompts(12)

    def look(values: dict[str, Tensor], name: str) -> None:
        held.load_state_dict(model_values(values))
        pipe = parts.pipeline(held, vae, *encoders, parts.tokenizer())
        rows = {"real": show.real(prompts), size: show.draw(pipe, prompts, 20)}
        show.grid(prompts, rows).save(shop.work / f"{size}-{name}.png")

    values = train(task, recipe, shop.work / f"runs/{size}.pt", shop.device, look)
    keep.save(model_values(values), shop.part(size))


def model_values(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Only the transformer's weights, without the training-only head."""
    return {name.removeprefix("model."): value for name, value in values.items() if name.startswith("model.")}


def export_all(shop: Workshop, recipe: TrainingRecipe) -> None:
    """The trained parts as half-precision folders in the package."""
    from .. import weights_dir

    pipe = parts.pipeline(shop.transformer("large"), shop.vae(), *shop.text_encoders(), parts.tokenizer())
    judge = shop.load("judge")
    tower = parts.image_tower()
    tower.load_state_dict(judge["image"])
    export(pipe, shop.transformer("small"), tower, judge["join"]["weight"], weights_dir())


STAGES: dict[str, Callable[[Workshop, TrainingRecipe], None]] = {
    "vae": train_vae,
    "clip": train_clip,
    "judge": train_judge,
    "pool": fill_pool,
    "small": lambda shop, recipe: train_flow(shop, recipe, "small"),
    "large": lambda shop, recipe: train_flow(shop, recipe, "large"),
    "decoder": train_decoder,
    "export": export_all,
}
