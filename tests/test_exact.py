"""SPEC §8.1: what must hold bit for bit, because the same tensors enter the same kernels."""

from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusion3Img2ImgPipeline, StableDiffusion3InpaintPipeline, StableDiffusion3Pipeline

from hybridstitch import HybridStitch, Schedule, stitch, unstitch
from seen import SIZES, pair, plain
from small_models import KINDS, generate, pipeline, small, vae

ADAPTIVE = HybridStitch(masks=(0.4, 0.2), thresholds=(0.9, 0.8, 0.7))  # three images leave stage 0 at different steps
DOORS = {
    "text-to-image": StableDiffusion3Pipeline,
    "image-to-image": StableDiffusion3Img2ImgPipeline,
    "inpaint": StableDiffusion3InpaintPipeline,
}


def opened(door, kind="sd3", dtype=torch.float32):
    """A plain pipeline of one of `DOORS`, a small transformer for it, and the arguments its picture needs."""
    wide = {"in_channels": 16, "out_channels": 16} if door == "inpaint" else {}  # what SD3 inpainting asks for
    pipe = pipeline(kind, DOORS[door], **wide)
    if wide:
        pipe.register_modules(vae=vae(latent_channels=16))
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(9)).to(dtype)
    hole = torch.zeros(1, 1, 32, 32)
    hole[..., 8:24, 5:30] = 1.0
    call = {
        "text-to-image": {},
        "image-to-image": {"image": image, "strength": 0.7},
        "inpaint": {"image": image, "mask_image": hole, "strength": 0.9},
    }[door]
    return pipe.to(dtype), small(kind, **wide).to(dtype), call


def told(trace):
    """A trace without its times."""
    return [replace(step, seconds=0.0) for step in trace.records]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("guidance", [4.0, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_large_only_is_the_plain_pipeline(kind, size, guidance, images, dtype):
    call = {"size": size, "guidance_scale": guidance, "images": images, "steps": 3}
    pipe = pipeline(kind).to(dtype)
    expected = generate(pipe, **call)
    stitch(pipe, small(kind).to(dtype), "large")
    assert torch.equal(generate(pipe, **call), expected)
    pipe.transformer.policy = Schedule("L2 H1@0.3")  # keys and values are kept as the first two steps go
    generate(pipe, **call)
    pipe.transformer.policy = Schedule("L*")
    assert torch.equal(generate(pipe, **call), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("door", DOORS)
def test_large_only_is_the_plain_pipeline_through_every_door(door, dtype):
    pipe, other, call = opened(door, dtype=dtype)
    expected = generate(pipe, **call)
    stitch(pipe, other, "large")
    assert torch.equal(generate(pipe, **call), expected)
    assert {str(step.drawn) for step in pipe.transformer.trace.records} == {"L"}


def test_keeping_keys_and_values_changes_no_bit():
    expected = generate(plain(), images=3)
    pipe = pair(HybridStitch(thresholds=(1e-9, 1e-9)))
    with pytest.warns(UserWarning, match="never left the large model"):
        assert torch.equal(generate(pipe, images=3), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("door", DOORS)
def test_a_second_run_is_the_first(door, dtype):
    pipe, other, call = opened(door, dtype=dtype)
    stitch(pipe, other, ADAPTIVE)
    call |= {"images": 3} if door == "text-to-image" else {}
    first = generate(pipe, steps=10, **call)
    before = told(pipe.transformer.trace)
    assert len({step.plan.stage for step in before}) > 2
    assert torch.equal(generate(pipe, steps=10, **call), first)
    assert told(pipe.transformer.trace) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("door", DOORS)
def test_after_unstitch_all_is_as_before_stitch(door, kind):
    pipe, other, call = opened(door, kind)
    large, processors, step = pipe.transformer, dict(pipe.transformer.attn_processors), vars(pipe.scheduler).get("step")
    expected = generate(pipe, **call)
    pipe.transformer = other
    expected_alone = generate(pipe, **call)
    pipe.transformer = large
    stitch(pipe, other, "L2 H2@0.3 S*")
    generate(pipe, **call)
    unstitch(pipe)
    assert torch.equal(generate(pipe, **call), expected)
    assert pipe.transformer is large
    assert all(large.attn_processors[name] is processor for name, processor in processors.items())
    assert vars(pipe.scheduler).get("step") is step
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in large.modules())
    pipe.transformer = other
    assert torch.equal(generate(pipe, **call), expected_alone)


def interrupted(pipe):
    """A run that its callback ends in the masked stage."""

    def stop(pipe, step, timestep, tensors):
        pipe._interrupt = step == 4
        return {}

    generate(pipe, images=3, callback_on_step_end=stop)
    assert max(step.index for step in pipe.transformer.trace.records) == 4


def failed_callback(pipe):
    """A run that ends with an exception of its callback in the masked stage."""

    def fail(pipe, step, timestep, tensors):
        if step == 4:
            raise RuntimeError("provoked")
        return {}

    with pytest.raises(RuntimeError, match="provoked"):
        generate(pipe, images=3, callback_on_step_end=fail)


def failed_model(module, calls):
    """A run that ends with an exception inside a model."""

    def run(pipe):
        left = [calls]

        def fail(*_):
            left[0] -= 1
            if left[0] == 0:
                raise RuntimeError("provoked")

        hook = module(pipe).register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="provoked"):
            generate(pipe, images=3)
        hook.remove()

    return run


@pytest.mark.parametrize(
    "broken",
    [
        interrupted,
        failed_callback,
        failed_model(lambda pipe: pipe.transformer.small, 2),
        failed_model(lambda pipe: pipe.transformer.large.transformer_blocks[2], 2),  # in a dense step
        failed_model(lambda pipe: pipe.transformer.large.transformer_blocks[2], 5),  # in a masked step
        failed_model(lambda pipe: pipe.transformer.large.transformer_blocks[1].attn.to_out[0], 5),
    ],
    ids=["interrupt", "callback", "small", "large-dense", "large-masked", "attention-masked"],
)
def test_a_run_after_a_broken_run_is_a_run(broken):
    expected = generate(pair("L3 H3@0.3 S2"), images=3)
    pipe = pair("L3 H3@0.3 S2")
    broken(pipe)
    assert torch.equal(generate(pipe, images=3), expected)
    broken(pipe)
    unstitch(pipe)
    assert torch.equal(generate(pipe, images=3), generate(plain(), images=3))
