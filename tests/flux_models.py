"""Random FLUX.1-type pairs and pipelines, small enough for tests; prompts are given as embeddings."""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from hybridstitch import stitch
from small_models import vae

TEXT, TEXT_WIDTH, POOLED = 7, 24, 20


def transformer(
    *, heads: int = 4, layers: int = 2, seed: int = 0, guided: bool = True, text_width: int = TEXT_WIDTH
) -> FluxTransformer2DModel:
    """A random transformer, 16 wide a head, as many double as single blocks."""
    torch.manual_seed(seed)
    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=layers,
        num_single_layers=layers,
        attention_head_dim=16,
        num_attention_heads=heads,
        joint_attention_dim=text_width,
        pooled_projection_dim=POOLED,
        guidance_embeds=guided,
        axes_dims_rope=(4, 6, 6),
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "norm" not in name:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
    return model


def pipeline(cls: type = FluxPipeline, **changes: Any) -> Any:
    """A pipeline around a random large transformer."""
    none = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = cls(
        transformer=transformer(heads=6, seed=1, **changes),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        **none,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def small(**changes: Any) -> FluxTransformer2DModel:
    """A random small transformer that fits `pipeline`."""
    return transformer(heads=3, layers=1, seed=2, **changes)


def stitched(policy: Any = "large", dtype: torch.dtype = torch.float32) -> Any:
    """`pipeline`, stitched with `small`."""
    pipe = pipeline().to(dtype)
    stitch(pipe, small().to(dtype), policy)
    return pipe


def embeddings(images: int, dtype: torch.dtype, seed: int = 3) -> dict[str, torch.Tensor]:
    """In place of prompts, one per image."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "prompt_embeds": torch.randn(images, TEXT, TEXT_WIDTH, generator=generator).to(dtype),
        "pooled_prompt_embeds": torch.randn(images, POOLED, generator=generator).to(dtype),
    }


def generate(pipe: Any, *, images: int = 1, steps: int = 6, seed: int = 7, **call: Any) -> torch.Tensor:
    """Packed latents (B, N, C) from a seed; 8×6 tokens."""
    arguments = {
        **embeddings(images, pipe.transformer.dtype),
        "num_inference_steps": steps,
        "height": 32,
        "width": 24,
        "generator": torch.Generator().manual_seed(seed),
        "output_type": "latent",
        "return_dict": False,
        **call,
    }
    return pipe(**arguments)[0]
