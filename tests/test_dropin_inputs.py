"""Drop-in, what goes in and comes out: prompts, noise, schedules, sizes, dtypes and output types."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from dropin import (
    ADAPTIVE,
    HYBRID,
    NO_EMBEDDINGS,
    after_each_step,
    check_as_if_alone,
    noise,
    same,
    tokens_of,
)
from hybridstitch import stitch
from small_models import generate, pipeline, prompt, small, stitched, worded


@pytest.mark.dropin("num_images_per_prompt")
def test_several_images_of_a_prompt():
    call = {**NO_EMBEDDINGS, "prompt": ["a dog", "a cat"]}
    expected = generate(worded(pipeline()), **call, num_images_per_prompt=2)
    assert len(expected) == 4
    pipe = worded(pipeline())
    stitch(pipe, small(), "large")
    assert torch.equal(generate(pipe, **call, num_images_per_prompt=2), expected)

    pipe.transformer.policy = HYBRID
    four = generate(pipe, **call, num_images_per_prompt=2)
    assert pipe.transformer.trace.images == 4
    assert torch.equal(four, generate(pipe, **{**call, "prompt": ["a dog", "a dog", "a cat", "a cat"]}))


@pytest.mark.dropin("several prompts")
def test_each_of_several_prompts_is_drawn_as_if_alone():
    call = {**NO_EMBEDDINGS, "prompt": ["a dog", "a cat", "ox"], "negative_prompt": ["", "b", "c"]}
    expected = generate(worded(pipeline()), **call)
    pipe = worded(pipeline())
    stitch(pipe, small(), "large")
    assert torch.equal(generate(pipe, **call), expected)

    pipe.to(torch.float64).transformer.policy = ADAPTIVE
    start = noise(3)
    three, trace = generate(pipe, **call, latents=start.clone()), pipe.transformer.trace
    assert len({trace.switches(image) for image in range(3)}) > 1  # the images change stage at steps of their own
    for image in range(3):
        one = {name: call[name][image] for name in ("prompt", "negative_prompt")}
        check_as_if_alone(three, pipe, trace, image, **{**call, **one}, latents=start[image, None].clone())


@pytest.mark.dropin("generators (one, a list)")
@pytest.mark.parametrize("seeds", [[5], [5, 6]])
def test_generators(seeds):
    def generators():
        made = [torch.Generator().manual_seed(seed) for seed in seeds]
        return made if len(seeds) > 1 else made[0]

    images = len(seeds)
    assert torch.equal(
        generate(pipeline(), images=images, generator=generators()),
        generate(stitched(), images=images, generator=generators()),
    )
    pipe = stitched(HYBRID).to(torch.float64)
    drawn, trace = generate(pipe, images=images, generator=generators()), pipe.transformer.trace
    for image, seed in enumerate(seeds):
        text = {name: rows[image, None].double() for name, rows in prompt(images).items()}
        check_as_if_alone(drawn, pipe, trace, image, generator=torch.Generator().manual_seed(seed), **text)


@pytest.mark.dropin("latents=")
def test_given_latents_are_where_the_run_starts():
    start = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7))
    assert torch.equal(same(latents=start.clone(), generator=None), generate(pipeline(), seed=7))
    for policy in (HYBRID, ADAPTIVE):
        pipe, given = stitched(policy), start.clone()
        assert torch.equal(generate(pipe, latents=given, generator=None), generate(pipe, seed=7))
        assert torch.equal(given, start)


@pytest.mark.dropin("sigmas=")
def test_given_sigmas_are_the_steps():
    sigmas = [1.0, 0.8, 0.7, 0.45, 0.2, 0.1]
    same(sigmas=sigmas)
    pipe = stitched("L2 H2@0.3 S2")
    generate(pipe, sigmas=sigmas)
    trace = pipe.transformer.trace
    shifted = [3 * sigma / (1 + 2 * sigma) for sigma in sigmas]
    assert [s.sigma for s in trace.records] == pytest.approx(shifted)
    assert [str(s.drawn) for s in trace.records] == ["L", "L", "S + L@0.3", "S + L@0.3", "S", "S"]


@pytest.mark.dropin("mu, dynamic shifting")
@pytest.mark.parametrize("mu", [{}, {"mu": 0.9}])
def test_dynamic_shifting(mu):
    def scheduler():
        return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)

    expected = generate(pipeline(scheduler=scheduler()), **mu)
    pipe = stitched(scheduler=scheduler())
    assert torch.equal(generate(pipe, **mu), expected)
    pipe.transformer.policy = ADAPTIVE
    generate(pipe, **mu)
    assert [s.sigma for s in pipe.transformer.trace.records] == pipe.scheduler.sigmas[:-1].tolist()
    assert any(s.mask for s in pipe.transformer.trace.records)


@pytest.mark.dropin("non-square sizes")
@pytest.mark.dropin("odd-token sizes")
@pytest.mark.parametrize("size", [(32, 16), (16, 48), (36, 28), (20, 44)])
def test_sizes(size):
    same(size=size)
    rows, columns = size[0] // 4, size[1] // 4
    pipe = stitched("L3 H1@0.3 S4")
    hybrid = after_each_step(pipe, size=size)
    trace = pipe.transformer.trace
    assert trace.grid == (rows, columns)
    mask = trace.of(0)[3].mask
    assert len(mask) == int(0.3 * rows * columns + 0.5)
    pipe.transformer.policy = "L3 S5"
    small_only = after_each_step(pipe, size=size)
    assert tokens_of(hybrid[3, 0] != small_only[3, 0]) == mask  # the large model drew the mask, and nothing else


@pytest.mark.dropin("every output_type (pil, np, pt, latent)")
@pytest.mark.parametrize("kind", ["pil", "np", "pt", "latent"])
def test_output_types(kind):
    call = {"output_type": kind, "images": 2, "steps": 3}
    ours, plain = generate(stitched(), **call), generate(pipeline(), **call)
    assert type(ours) is type(plain)
    assert len(ours) == len(plain) == 2
    for mine, theirs in zip(ours, plain, strict=True):
        assert np.array_equal(np.asarray(mine), np.asarray(theirs))
    hybrid = generate(stitched("L2 H1@0.3"), **call)
    assert np.asarray(hybrid[1]).shape == np.asarray(plain[1]).shape
    assert np.isfinite(np.asarray(hybrid[1], dtype=float)).all()


@pytest.mark.dropin("return_dict")
def test_return_dict():
    pipe = stitched("L2 H1@0.3")
    call = {**prompt(), "num_inference_steps": 3, "height": 32, "width": 32, "output_type": "latent"}
    as_tuple = pipe(**call, generator=torch.Generator().manual_seed(0), return_dict=False)
    as_output = pipe(**call, generator=torch.Generator().manual_seed(0))
    assert isinstance(as_tuple, tuple)
    assert len(as_tuple) == 1
    assert type(as_output) is type(pipeline()(**call))
    assert torch.equal(as_tuple[0], as_output.images)

    inputs = {
        "hidden_states": torch.randn(1, 4, 16, 16),
        "encoder_hidden_states": prompt()["prompt_embeds"],
        "pooled_projections": prompt()["pooled_prompt_embeds"],
        "timestep": torch.tensor([500.0]),
    }
    pipe.transformer.policy = "large"
    with torch.no_grad():
        for transformer in (pipe.transformer, pipe.transformer.large):
            wrapped, bare = transformer(**inputs), transformer(**inputs, return_dict=False)
            assert type(wrapped) is type(pipe.transformer.large(**inputs))
            assert torch.equal(wrapped.sample, bare[0])


@pytest.mark.dropin("progress bar")
def test_the_progress_bar_counts_every_step(capsys):
    pipe = stitched(HYBRID)
    pipe.set_progress_bar_config(disable=False)
    generate(pipe)
    assert "8/8" in capsys.readouterr().err


@pytest.mark.dropin("fp32, bf16, fp16")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["sd3", "sd3.5-medium"])
def test_dtypes(dtype, kind):
    expected = generate(pipeline(kind).to(dtype))
    pipe = stitched("large", kind).to(dtype)  # both models move together
    assert pipe.transformer.small.dtype == pipe.transformer.dtype == dtype
    assert torch.equal(generate(pipe), expected)
    pipe.transformer.policy = HYBRID
    out = generate(pipe)
    assert out.dtype == dtype
    assert out.isfinite().all()
    trace = pipe.transformer.trace
    assert [s.large_tokens for s in trace.records] == [64] * 3 + [19] * 3 + [0] * 2
    assert all(s.distance is not None for s in trace.records[1:])
