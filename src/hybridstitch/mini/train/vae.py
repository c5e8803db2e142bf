"""The autoencoder: L1 + MSE on 64x64 crops, and a small KL term that keeps the latents smooth.

A second stage trains the decoder alone, on nearly noise-free latents. It leaves the latents as they are,
so it can run at any time after the pool is made.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from ..parts import autoencoder
from ..scenes import SIDE, Scene
from .data import to_tensor

CROP = 64  # pixels; the network is convolutional, and crops are four times as cheap
KL = 1e-4  # per latent value
CALM = 0.3  # share of the latents' noise the decoder-only stage keeps


class VaeTask:
    """Trains `autoencoder()`, or only the decoder of a given one."""

    def __init__(self, device: torch.device, trained: AutoencoderKL | None = None) -> None:
        self.device, self.decoder_only = device, trained is not None
        vae = (trained or autoencoder()).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        vae.encoder.requires_grad_(not self.decoder_only)
        self.modules = nn.ModuleDict({"vae": vae})

    def loss(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        """Reconstruction of random crops."""
        crops = []
        for _ in range(batch):
            image = Scene.sample(rng).render(rng)
            x, y = rng.integers(0, SIDE - CROP + 1, size=2).tolist()
            crops.append(image.crop((x, y, x + CROP, y + CROP)))
        pixels = to_tensor(crops).to(self.device, memory_format=torch.channels_last)  # (B, 3, 64, 64)
        vae = self.modules["vae"]
        code = vae.encode(pixels).latent_dist  # pyright: ignore
        mean, logvar = code.mean.float(), code.logvar.float()
        noise = torch.randn_like(mean) * (0.5 * logvar).exp()
        drawn = mean + (CALM if self.decoder_only else 1.0) * noise
        made = vae.decode(drawn).sample.float()  # pyright: ignore
        error = made - pixels
        mse = error.square().mean()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        psnr = float(-10 * torch.log10(mse.detach() / 4))
        return error.abs().mean() + mse + KL * kl, {"psnr": psnr, "kl": float(kl.detach())}


@torch.inference_mode()
def measure_latents(vae: AutoencoderKL, device: torch.device, scenes: int = 256) -> tuple[float, float, float]:
    """Mean and standard deviation of the latents, and PSNR in dB of whole pictures."""
    rng = np.random.default_rng(11)
    vae = vae.to(device).eval()  # pyright: ignore
    codes, errors = [], []
    for _ in range(scenes // 32):
        pixels = to_tensor([Scene.sample(rng, "heldout").render(rng) for _ in range(32)]).to(device)
        mean = vae.encode(pixels).latent_dist.mode()  # pyright: ignore
        codes.append(mean)
        made = vae.decode(mean).sample.clamp(-1, 1)  # pyright: ignore
        errors.append((made - pixels).square().mean(dim=(1, 2, 3)))
    code, error = torch.cat(codes), torch.cat(errors)
    return float(code.mean()), float(code.std()), float(-10 * torch.log10(error / 4).mean())
