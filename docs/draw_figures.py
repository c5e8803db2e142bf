"""`python docs/draw_figures.py`: draw the figures of docs/explanation again, from a run of the miniature pair.

masked-step.png: one step of `L10 H30@0.3 S10`, as it goes: what the last step said, what it changed, the mask, what
this step says. Only the pipeline's own callback and the trace are looked at.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
import torch
from PIL import Image
from torch import Tensor

import hybridstitch
from hybridstitch.pair.decoding import pictures
from hybridstitch.report.colours import INK, QUIET
from hybridstitch.report.overlay import enlarged, who_drew

PICTURES = Path(__file__).parent / "pictures"
PROMPT, PROGRAM, STEPS, STEP, SEED = "a robot above a pizza at sunset", "L10 H30@0.3 S10", 50, 25, 0


def run(pipe: Any) -> tuple[dict[str, Any], list[Tensor]]:
    """The call that was made, and the latent after each of its steps, (1, C, H, W)."""
    latents: list[Tensor] = []

    def remember(pipe: Any, step: int, time: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
        latents.append(given["latents"])
        return given

    call = {"prompt": PROMPT, "num_inference_steps": STEPS, "guidance_scale": 4.0}
    pipe(**call, generator=torch.Generator().manual_seed(SEED), callback_on_step_end=remember)
    return call, latents


def expected(latents: list[Tensor], sigmas: Tensor, step: int) -> Tensor:
    """The clean latent that a step points at, x − σ·v (Eq. 10); v from what the step did to x."""
    before, after = latents[step - 1], latents[step]
    v = (after - before) / (sigmas[step + 1] - sigmas[step])
    return before - sigmas[step] * v


def masked_step(pipe: Any, path: Path) -> None:
    """The figure."""
    call, latents = run(pipe)
    sigmas, trace = pipe.scheduler.sigmas.clone(), pipe.transformer.trace
    earlier, last, now = (expected(latents, sigmas, step) for step in (STEP - 2, STEP - 1, STEP))
    images = [pictures(pipe, latent, **call)[0] for latent in (last, now)]
    rows, columns = trace.grid
    change = (last - earlier).abs().mean(1)[0].unflatten(0, (rows, -1)).unflatten(2, (columns, -1)).mean((1, 3))
    shown = [
        (enlarged(images[0], 256), f"1. step {STEP - 1}: the expected picture"),
        (change, "2. how much each token changed"),
        (who_drew(images[0], trace.of(0)[STEP], trace.grid), "3. the 30 % that changed most"),
        (enlarged(images[1], 256), f"4. step {STEP}: the expected picture"),
    ]
    figure, places = plt.subplots(2, 2, figsize=(7.2, 7.9), dpi=110, layout="constrained")
    for axes, (what, title) in zip(places.flat, shown, strict=True):
        if isinstance(what, Image.Image):
            axes.imshow(np.asarray(what), interpolation="lanczos")
        else:
            axes.imshow(what, cmap="Greys", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color=QUIET, linewidth=0.8)
        axes.set_title(title, fontsize=11, color=INK, pad=6)
    places[1, 0].set_xlabel("orange: large model, blue: small one", fontsize=10, color=QUIET)
    figure.savefig(path)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    pipe = hybridstitch.open_pair("mini", policy=PROGRAM)
    pipe.set_progress_bar_config(disable=True)
    masked_step(pipe, PICTURES / "masked-step.png")
