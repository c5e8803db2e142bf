"""One training loop for all parts: Muon for matrices, AdamW for the rest, EMA, decay at the end,
resumable at any point.

Everything random in step i is drawn from generators seeded with (seed, i), so a resumed run takes the
very steps an unbroken one would have taken. Progress runs from 0 to 1 over `images`, or over `minutes` of
training time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from . import keep
from .precision import fastest, multiplied_in


class Task(Protocol):
    """What is trained: the modules, and the loss of one batch."""

    modules: nn.ModuleDict

    def loss(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of one fresh batch, and figures worth logging."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """The knobs of a run. Rates are peak learning rates; `minutes` replaces `images` if given."""

    images: int = 100_000
    minutes: float | None = None
    batch: int = 64
    matrix_rate: float = 1.5e-3
    other_rate: float = 1e-3
    warmup_steps: int = 100
    decay_share: float = 0.4
    ema: float = 0.999
    clip_norm: float = 1.0
    seed: int = 0
    save_seconds: float = 45.0
    look_seconds: float = 600.0


@dataclass(slots=True)
class Clock:
    """How far a run is."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0

    def progress(self, recipe: TrainingRecipe) -> float:
        """From 0 (start) to 1 (done)."""
        if recipe.minutes is not None:
            return self.seconds / (60 * recipe.minutes)
        return self.images / recipe.images


def optimizers(modules: nn.ModuleDict, recipe: TrainingRecipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside transformer blocks or layers, AdamW for everything else."""
    matrices, others = [], []
    for name, parameter in modules.named_parameters():
        if parameter.requires_grad:
            inside = parameter.ndim == 2 and (".transformer_blocks." in name or ".layers." in name)
            (matrices if inside else others).append(parameter)
    built: list[torch.optim.Optimizer] = []
    if matrices:
        built.append(
            torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        )
    built.append(torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0))
    return built


def rate_factor(progress: float, step: int, recipe: TrainingRecipe) -> float:
    """Warm up, hold, then fall linearly to zero over the last `decay_share`."""
    return min(1.0, (step + 1) / recipe.warmup_steps, max(0.0, (1 - progress) / recipe.decay_share))


class Average:
    """The exponential moving average of a module's parameters and buffers."""

    def __init__(self, modules: nn.ModuleDict, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in modules.state_dict().items()}

    @torch.no_grad()
    def update(self, modules: nn.ModuleDict, step: int) -> None:
        """Move towards the present values; faster in the first steps."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in modules.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, weight)
            else:
                self.values[name].copy_(value)


def train(
    task: Task,
    recipe: TrainingRecipe,
    path: Path,
    device: torch.device,
    look: Callable[[dict[str, Tensor], str], None] | None = None,
    stop_after_steps: int | None = None,
) -> dict[str, Tensor]:
    """Train to the end of the recipe and return the averaged weights. Continues from `path` if it exists.

    Matrices are multiplied in the faster dtype here (`precision.fastest`); a run that goes on keeps its own.
    """
    task.modules.to(device).train()
    steppers = optimizers(task.modules, recipe)
    average = Average(task.modules, recipe.ema)
    clock = Clock()
    if (state := keep.load(path, device)) is not None:
        task.modules.load_state_dict(state["modules"])
        average.values = state["average"]
        for stepper, saved in zip(steppers, state["steppers"], strict=True):
            stepper.load_state_dict(saved)
        clock = Clock(**state["clock"])
        dtype = state.get("dtype", torch.bfloat16)
        print(f"resumed at {clock.images} images, {clock.seconds:.0f} s, in {dtype}", flush=True)
    else:
        dtype = fastest(device)
        print(f"training in {dtype}", flush=True)

    def save() -> None:
        keep.save(
            {
                "modules": task.modules.state_dict(),
                "average": average.values,
                "steppers": [stepper.state_dict() for stepper in steppers],
                "clock": {"step": clock.step, "images": clock.images, "seconds": clock.seconds},
                "dtype": dtype,
            },
            path,
        )

    saved = logged = looked = time.monotonic()
    logged_images, begun = clock.images, clock.step
    figures: dict[str, list[float]] = {}
    while clock.progress(recipe) < 1:
        if stop_after_steps is not None and clock.step - begun >= stop_after_steps:
            break
        start = time.monotonic()
        factor = rate_factor(clock.progress(recipe), clock.step, recipe)
        for stepper, peak in zip(steppers, _peaks(steppers, recipe), strict=True):
            for group in stepper.param_groups:
                group["lr"] = peak * factor
        torch.manual_seed(recipe.seed * 1_000_003 + clock.step)
        rng = np.random.default_rng((recipe.seed, clock.step))
        with multiplied_in(dtype, device):
            loss, logs = task.loss(rng, recipe.batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(task.modules.parameters(), recipe.clip_norm)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        average.update(task.modules, clock.step)
        for name, value in {"loss": float(loss.detach()), "norm": float(norm), **logs}.items():
            figures.setdefault(name, []).append(value)
        now = time.monotonic()
        clock.step, clock.images, clock.seconds = (
            clock.step + 1,
            clock.images + recipe.batch,
            clock.seconds + now - start,
        )
        if now - logged > 20:
            text = " ".join(f"{name} {np.mean(values):.4f}" for name, values in figures.items())
            speed = (clock.images - logged_images) / (now - logged)
            stamp = time.strftime("%H:%M:%S")
            print(
                f"{stamp} {clock.progress(recipe):6.1%} images {clock.images} {text} {speed:.1f} images/s",
                flush=True,
            )
            figures, logged, logged_images = {}, now, clock.images
        if now - saved > recipe.save_seconds:
            save()
            saved = time.monotonic()
        if look is not None and now - looked > recipe.look_seconds:
            look(average.values, f"{clock.images:07d}")
            looked = time.monotonic()
    save()
    if look is not None:
        look(average.values, f"{clock.images:07d}")
    return average.values


def _peaks(steppers: list[torch.optim.Optimizer], recipe: TrainingRecipe) -> list[float]:
    return [recipe.matrix_rate if isinstance(stepper, torch.optim.Muon) else recipe.other_rate for stepper in steppers]
