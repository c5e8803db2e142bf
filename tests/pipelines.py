"""Unmodified pipelines of many families around tiny random transformers; prompts are embeddings, pictures are latents.

A row of `PIPELINES` says how a transformer of a given width is made, what stands around it, what its pipeline is asked,
and the grid of tokens its trace should show.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from hybridstitch import stitch
from small_models import vae as image_vae

TEXT, WIDTH = 7, 24
Numbers = Mapping[str, Any]


def words(images: int, *shape: int, seed: int = 3) -> Tensor:
    """Random embeddings, (images, …)."""
    return torch.randn(images, *shape, generator=torch.Generator().manual_seed(seed))


def text(images: int, negative: bool = True, mask: str = "") -> dict[str, Tensor]:
    """Embeddings in place of prompts, and in place of negative ones; masks of the given name."""
    found = {"prompt_embeds": words(images, TEXT, WIDTH)}
    if negative:
        found["negative_prompt_embeds"] = words(images, TEXT, WIDTH, seed=4)
    masks = {name.replace("embeds", mask): torch.ones(images, TEXT, dtype=torch.bool) for name in found} if mask else {}
    return {**found, **masks}


def euler(**changes: Any) -> FlowMatchEulerDiscreteScheduler:
    """Flow matching by Euler's method."""
    return FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **changes})


def unipc() -> UniPCMultistepScheduler:
    """Wan's."""
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


@dataclass(frozen=True, kw_only=True)
class Piped:
    """How a pipeline is built and called.

    Attributes:
        pipeline: its class's name.
        kind: its transformer's class's name.
        config: of the transformer.
        sizes: entries of the configuration that make the large and the small one.
        scheduler: makes one.
        parts: makes the other components, None where they are absent.
        inputs: makes the call's arguments, by the number of images.
        grid: of its trace.
        settings: further arguments of the pipeline's class.
        needs: a package its transformer imports when it draws.
        batches: whether the pipeline draws several at once.
        experts: whether it draws with two large models.
    """

    pipeline: str
    kind: str
    config: Numbers
    sizes: tuple[Numbers, Numbers]
    scheduler: Callable[[], Any] = euler
    parts: Callable[[], dict[str, Any]] = dict
    absent: str = "text_encoder tokenizer vae"
    inputs: Callable[[int], dict[str, Any]] = text
    grid: tuple[int, ...]
    settings: Numbers = field(default_factory=dict)
    needs: str = ""
    batches: bool = True
    experts: bool = False

    @property
    def lacking(self) -> str | None:
        """What is not installed, or None."""
        missing = [name for name in (self.pipeline, self.kind) if not hasattr(diffusers, name)]
        if self.needs and find_spec(self.needs) is None:
            missing.append(self.needs)
        return f"no {' and no '.join(missing)} here" if missing else None

    def transformer(self, which: int, seed: int | None = None) -> Any:
        """The large one (0) or the small one (1)."""
        torch.manual_seed(which + 1 if seed is None else seed)
        model = getattr(diffusers, self.kind)(**{**self.config, **self.sizes[which]}).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and "norm" not in name:
                    parameter.normal_(0, parameter[0].numel() ** -0.5)
        return model

    def build(self, **changes: Any) -> Any:
        """The pipeline, around the large one."""
        none = dict.fromkeys(self.absent.split())
        torch.manual_seed(5)
        parts = {**none, **self.parts(), "transformer": self.transformer(0), "scheduler": self.scheduler()}
        pipe = getattr(diffusers, self.pipeline)(**{**parts, **self.settings, **changes})
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def here(self) -> "Piped":
        """Itself; the test is skipped where it cannot be built."""
        if self.lacking:
            pytest.skip(self.lacking)
        return self

    def stitched(self, policy: Any = "large") -> Any:
        """The pipeline, stitched with the small transformer."""
        pipe = self.build()
        stitch(pipe, self.transformer(1), policy)
        return pipe

    def draw(self, pipe: Any, images: int = 1, steps: int = 4) -> Tensor:
        """A picture or video, (images, …)."""
        drawn = pipe(
            **{
                "num_inference_steps": steps,
                "generator": torch.Generator().manual_seed(7),
                "output_type": "latent",
                "return_dict": False,
                **self.inputs(images),
            }
        )[0]
        return torch.as_tensor(drawn)


def heads(large: int = 4, small: int = 2, **more: Any) -> tuple[Numbers, Numbers]:
    """Sizes that differ in heads."""
    return {"num_attention_heads": large, **more}, {"num_attention_heads": small, **more}


UNBINNED = {"negative_prompt": None, "use_resolution_binning": False}
SMALL = {"height": 16, "width": 12}
SQUARE = {"height": 64, "width": 48}
CLIP = {"height": 32, "width": 48, "num_frames": 9}
FLUX2 = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "joint_attention_dim": WIDTH,
    "timestep_guidance_channels": 16,
    "axes_dims_rope": (4, 4, 4, 4),
}
WAN = {
    "patch_size": (1, 2, 2),
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": WIDTH,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}
LTX = {
    "in_channels": 8,
    "out_channels": 8,
    "attention_head_dim": 8,
    "num_layers": 2,
    "caption_channels": WIDTH,
}
LTX_SIZES = tuple({"num_attention_heads": n, "cross_attention_dim": 8 * n} for n in (4, 2))


def wan_vae() -> dict[str, Any]:
    """A tiny one, 16 channels."""
    made = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    return {"vae": made.eval()}


def clip_vae() -> dict[str, Any]:
    """A tiny one of CogVideoX, 4 channels, factor 4 × 8 × 8."""
    made = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    return {"vae": made.eval()}


def sight() -> dict[str, Any]:
    """A tiny encoder of pictures, 20 wide."""
    config = CLIPVisionConfig(
        hidden_size=20, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    side = {"height": 8, "width": 8}
    return {
        "image_encoder": CLIPVisionModel(config).eval(),
        "image_processor": CLIPImageProcessor(size=side, crop_size=side),
    }


def flux2_vae() -> dict[str, Any]:
    """A tiny one, 4 channels, factor 2."""
    made = diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return {"vae": made.eval()}


def qwen_vae() -> Any:
    """A tiny one, 4 channels, factor 8."""
    made = diffusers.AutoencoderKLQwenImage(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4
    )
    return made.eval()


def ltx_vae() -> dict[str, Any]:
    """A tiny one, 8 channels, factor 4 × 8 × 8 or what its levels say."""
    made = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False, False, False, False, False),
        upsample_residual=(False, False, False, False),
        upsample_factor=(1, 1, 1, 1),
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    made.use_framewise_encoding = made.use_framewise_decoding = False
    return {"vae": made.eval()}


def picture(images: int = 1, height: int = 32, width: int = 32) -> Tensor:
    """A random picture to begin with."""
    return torch.rand(images, 3, height, width, generator=torch.Generator().manual_seed(8))


def pil(image: Tensor) -> Any:
    """The same as an image file's."""
    return VaeImageProcessor.numpy_to_pil(image.permute(0, 2, 3, 1).numpy())[0]


def ltx(images: int, **more: Any) -> dict[str, Any]:
    """A call of LTX's."""
    return {**text(images, mask="attention_mask"), "guidance_scale": 3.0, **CLIP, "width": 32, **more}


PIPELINES: dict[str, Piped] = {
    "flux2": Piped(
        pipeline="Flux2Pipeline",
        kind="Flux2Transformer2DModel",
        config={**FLUX2, "guidance_embeds": True},
        sizes=heads(),
        inputs=lambda n: {**text(n, negative=False), **SMALL},
        parts=flux2_vae,
        absent="text_encoder tokenizer",
        grid=(4, 3),
    ),
    "flux2-klein": Piped(
        pipeline="Flux2KleinPipeline",
        kind="Flux2Transformer2DModel",
        config={**FLUX2, "guidance_embeds": False},
        sizes=heads(),
        inputs=lambda n: {**text(n), **SMALL, "image": pil(picture(1, 64, 64))},
        parts=flux2_vae,
        absent="text_encoder tokenizer",
        grid=(4, 3),
    ),
    "wan": Piped(
        pipeline="WanPipeline",
        kind="WanTransformer3DModel",
        config=WAN,
        sizes=heads(),
        scheduler=unipc,
        inputs=lambda n: {**text(n), **CLIP},
        grid=(3, 2, 3),
    ),
    "wan-2.2": Piped(
        pipeline="WanPipeline",
        kind="WanTransformer3DModel",
        config=WAN,
        sizes=heads(),
        scheduler=unipc,
        parts=lambda: {"transformer_2": PIPELINES["wan"].transformer(0, seed=9)},
        inputs=lambda n: {**text(n), **CLIP, "guidance_scale_2": 3.0},
        settings={"boundary_ratio": 0.8},
        grid=(3, 2, 3),
        experts=True,
    ),
    "wan-i2v": Piped(
        pipeline="WanImageToVideoPipeline",
        kind="WanTransformer3DModel",
        config={**WAN, "in_channels": 36, "image_dim": 20},
        sizes=heads(),
        scheduler=unipc,
        parts=lambda: {**wan_vae(), **sight()},
        absent="text_encoder tokenizer",
        inputs=lambda n: {**text(n), **CLIP, "image": pil(picture())},
        grid=(3, 2, 3),
    ),
    "wan-vace": Piped(
        pipeline="WanVACEPipeline",
        kind="WanVACETransformer3DModel",
        config={**WAN, "vace_in_channels": 96, "num_layers": 3},
        sizes=(
            {"num_attention_heads": 4, "vace_layers": [0, 1, 2]},
            {"num_attention_heads": 2, "vace_layers": [0, 2]},
        ),
        scheduler=unipc,
        parts=wan_vae,
        absent="text_encoder tokenizer",
        inputs=lambda n: {**text(n), **CLIP},
        grid=(3, 2, 3),
        batches=False,
    ),
    "ltx": Piped(
        pipeline="LTXPipeline",
        kind="LTXVideoTransformer3DModel",
        config=LTX,
        sizes=LTX_SIZES,
        parts=ltx_vae,
        absent="text_encoder tokenizer",
        inputs=ltx,
        grid=(3, 8, 8),
    ),
    "ltx-i2v": Piped(
        pipeline="LTXImageToVideoPipeline",
        kind="LTXVideoTransformer3DModel",
        config=LTX,
        sizes=LTX_SIZES,
        parts=ltx_vae,
        absent="text_encoder tokenizer",
        inputs=lambda n: ltx(n, image=picture(n)),
        grid=(3, 8, 8),
    ),
    "ltx-condition": Piped(
        pipeline="LTXConditionPipeline",
        kind="LTXVideoTransformer3DModel",
        config=LTX,
        sizes=LTX_SIZES,
        parts=ltx_vae,
        absent="text_encoder tokenizer",
        inputs=lambda n: ltx(n, image=picture(), frame_index=0, strength=0.9),
        grid=(3, 8, 8),
    ),
    "qwen-image": Piped(
        pipeline="QwenImagePipeline",
        kind="QwenImageTransformer2DModel",
        config={
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 16,
            "joint_attention_dim": WIDTH,
            "axes_dims_rope": (8, 4, 4),
        },
        sizes=heads(),
        inputs=lambda n: {**text(n, mask="embeds_mask"), "true_cfg_scale": 3.0, **SQUARE},
        grid=(4, 3),
    ),
    "cosmos": Piped(
        pipeline="Cosmos2TextToImagePipeline",
        kind="CosmosTransformer3DModel",
        config={
            "in_channels": 16,
            "out_channels": 16,
            "attention_head_dim": 16,
            "num_layers": 2,
            "mlp_ratio": 2,
            "text_embed_dim": WIDTH,
            "adaln_lora_dim": 4,
            "max_size": (4, 32, 32),
            "rope_scale": (2.0, 1.0, 1.0),
            "extra_pos_embed_type": None,
        },
        sizes=heads(),
        scheduler=lambda: euler(shift=1.0, use_karras_sigmas=True),
        absent="text_encoder tokenizer",
        parts=lambda: {**wan_vae(), "safety_checker": Harmless()},
        inputs=lambda n: {**text(n), "height": 64, "width": 48},
        grid=(1, 4, 3),
        needs="torchvision",
    ),
    "cogvideox": Piped(
        pipeline="CogVideoXPipeline",
        kind="CogVideoXTransformer3DModel",
        config={
            "attention_head_dim": 8,
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 8,
            "text_embed_dim": WIDTH,
            "num_layers": 2,
            "sample_width": 6,
            "sample_height": 4,
            "sample_frames": 9,
            "max_text_seq_length": TEXT,
            "use_rotary_positional_embeddings": False,
        },
        sizes=heads(),
        scheduler=lambda: diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction", clip_sample=False),
        inputs=lambda n: {**text(n), **CLIP, "max_sequence_length": TEXT},
        grid=(3, 2, 3),
    ),
    "kandinsky5": Piped(
        pipeline="Kandinsky5T2VPipeline",
        kind="Kandinsky5Transformer3DModel",
        config={
            "in_visual_dim": 4,
            "out_visual_dim": 4,
            "in_text_dim": WIDTH,
            "in_text_dim2": 12,
            "time_dim": 16,
            "ff_dim": 32,
            "num_text_blocks": 1,
            "num_visual_blocks": 2,
            "axes_dims": (4, 4, 4),
        },
        sizes=({"model_dim": 48}, {"model_dim": 24}),
        absent="text_encoder tokenizer text_encoder_2 tokenizer_2 vae",
        inputs=lambda n: {
            "prompt_embeds_qwen": words(n, TEXT, WIDTH),
            "prompt_embeds_clip": words(n, 12),
            "negative_prompt_embeds_qwen": words(n, TEXT, WIDTH, seed=4),
            "negative_prompt_embeds_clip": words(n, 12, seed=4),
            "prompt_cu_seqlens": torch.arange(n + 1) * TEXT,
            "negative_prompt_cu_seqlens": torch.arange(n + 1) * TEXT,
            **CLIP,
        },
        grid=(3, 2, 3),
    ),
    "sana": Piped(
        pipeline="SanaPipeline",
        kind="SanaTransformer2DModel",
        config={
            "patch_size": 1,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "cross_attention_head_dim": 8,
            "caption_channels": WIDTH,
            "sample_size": 8,
        },
        sizes=tuple(
            {"num_attention_heads": n, "num_cross_attention_heads": n, "cross_attention_dim": 8 * n} for n in (4, 2)
        ),
        scheduler=lambda: diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        inputs=lambda n: {
            **text(n, mask="attention_mask"),
            **UNBINNED,
            "height": 256,
            "width": 192,
            "complex_human_instruction": None,
        },
        grid=(8, 6),
    ),
    "dit": Piped(
        pipeline="DiTPipeline",
        kind="DiTTransformer2DModel",
        config={
            "attention_head_dim": 8,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 2,
            "sample_size": 8,
            "patch_size": 2,
            "num_embeds_ada_norm": 1000,
        },
        sizes=heads(),
        scheduler=lambda: DDIMScheduler(clip_sample=False),
        parts=lambda: {"vae": image_vae()},
        absent="",
        inputs=lambda n: {"class_labels": [3, 5, 7][:n], "output_type": "pt"},
        grid=(4, 4),
    ),
    "lumina2": Piped(
        pipeline="Lumina2Pipeline",
        kind="Lumina2Transformer2DModel",
        config={
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "num_kv_heads": 1,
            "multiple_of": 8,
            "axes_dim_rope": (4, 4, 4),
            "axes_lens": (32, 32, 32),
            "cap_feat_dim": WIDTH,
        },
        sizes=(
            {"hidden_size": 48, "num_attention_heads": 4},
            {"hidden_size": 24, "num_attention_heads": 2},
        ),
        inputs=lambda n: {**text(n, mask="attention_mask"), "cfg_trunc_ratio": 0.6, **SQUARE},
        grid=(4, 3),
    ),
    "pixart": Piped(
        pipeline="PixArtAlphaPipeline",
        kind="PixArtTransformer2DModel",
        config={
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 2,
            "attention_head_dim": 8,
            "caption_channels": WIDTH,
            "sample_size": 128,
            "use_additional_conditions": True,
        },
        sizes=tuple({"num_attention_heads": n, "cross_attention_dim": 8 * n} for n in (6, 3)),
        scheduler=diffusers.DPMSolverMultistepScheduler,
        inputs=lambda n: {**text(n, mask="attention_mask"), **UNBINNED, **SQUARE},
        grid=(4, 3),
    ),
    "chroma": Piped(
        pipeline="ChromaPipeline",
        kind="ChromaTransformer2DModel",
        config={
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 16,
            "joint_attention_dim": WIDTH,
            "axes_dims_rope": (4, 6, 6),
            "approximator_num_channels": 16,
            "approximator_hidden_dim": 16,
            "approximator_layers": 1,
        },
        sizes=heads(),
        absent="text_encoder tokenizer vae image_encoder feature_extractor",
        inputs=lambda n: {**text(n, mask="attention_mask"), **SQUARE},
        grid=(4, 3),
    ),
    "hunyuan-video": Piped(
        pipeline="HunyuanVideoPipeline",
        kind="HunyuanVideoTransformer3DModel",
        config={
            "in_channels": 4,
            "out_channels": 4,
            "attention_head_dim": 12,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "text_embed_dim": WIDTH,
            "pooled_projection_dim": 12,
            "rope_axes_dim": (4, 4, 4),
        },
        sizes=heads(),
        absent="text_encoder tokenizer text_encoder_2 tokenizer_2 vae",
        inputs=lambda n: {
            **text(n, mask="attention_mask"),
            "pooled_prompt_embeds": words(n, 12),
            "negative_pooled_prompt_embeds": words(n, 12, seed=4),
            "true_cfg_scale": 3.0,
            **CLIP,
        },
        grid=(3, 2, 3),
    ),
    "auraflow": Piped(
        pipeline="AuraFlowPipeline",
        kind="AuraFlowTransformer2DModel",
        config={
            "sample_size": 8,
            "in_channels": 4,
            "num_mmdit_layers": 1,
            "num_single_dit_layers": 1,
            "attention_head_dim": 8,
            "joint_attention_dim": WIDTH,
            "pos_embed_max_size": 64,
        },
        sizes=tuple({"num_attention_heads": n, "caption_projection_dim": 8 * n} for n in (4, 2)),
        inputs=lambda n: {**text(n, mask="attention_mask"), **SQUARE},
        grid=(4, 3),
    ),
}


class Harmless(torch.nn.Module):
    """In place of Cosmos' safety checker, whose weights nobody has here."""

    device, dtype = torch.device("cpu"), torch.float32

    def check_text_safety(self, prompt: str) -> bool:
        """Always."""
        return True
