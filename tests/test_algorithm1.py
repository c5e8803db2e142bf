"""SPEC §8.3: the pipeline draws what the plain loop of `examples/algorithm1.py` draws, and decides what it decides."""

import runpy
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from examples.algorithm1 import LargeModel, algorithm1
from hybridstitch import HybridStitch
from seen import SIZES, calm, differences, noise, pair, same
from small_models import KINDS, generate, prompt, small, transformer

EXAMPLE = Path(__file__).parents[1] / "examples" / "algorithm1.py"
IMAGES, STEPS = 3, 10
TAU = (0.65, 0.65, 0.5)
POLICIES = {
    "one mask": HybridStitch(masks=(0.3,), thresholds=(0.65, 0.5)),
    "two masks": HybridStitch(masks=(0.4, 0.2), thresholds=TAU),
    "three masks": HybridStitch(masks=(0.5, 0.25, 0.01), thresholds=(0.9, 0.8, 0.65, 0.5)),
    "late": HybridStitch(masks=(0.4, 0.2), thresholds=(0.7, 0.7, 0.6), min_large=0.31),
    "patient": HybridStitch(masks=(0.4, 0.2), thresholds=(0.9, 0.8, 0.6), patience=2),
}
ALL = [(kind, "two masks", size, g) for kind in KINDS for size in SIZES for g in (4.0, 1.0)]
ALL += [("sd3.5-medium", name, "odd", 4.0) for name in POLICIES if name != "two masks"]


def loop(kind, policy, size, guidance, image, **replay):
    """The plain loop on one image of the batch that `stitched_run` draws."""
    words = prompt(IMAGES)
    rows = ("negative_", "") if guidance > 1 else ("",)
    names = "prompt_embeds", "pooled_prompt_embeds"
    text, pooled = (torch.stack([words[row + name][image] for row in rows]) for name in names)
    large = LargeModel(calm(transformer(kind, heads=6, layers=4, seed=1)))
    euler, x = FlowMatchEulerDiscreteScheduler(shift=3.0), noise(IMAGES, SIZES[size])[image, None]
    options = policy.masks, policy.thresholds, policy.min_large, policy.patience
    return algorithm1(large, calm(small(kind)), euler, x, text, pooled, guidance, STEPS, *options, **replay)


def stitched_run(kind, policy, size, guidance):
    """A batch drawn by the pipeline: its latents and trace."""
    pipe = pair(policy, kind)
    start = noise(IMAGES, SIZES[size])
    call = {"images": IMAGES, "steps": STEPS, "size": SIZES[size], "guidance_scale": guidance, "latents": start}
    return generate(pipe, **call), pipe.transformer.trace


def as_replay(steps, tokens):
    """A trace's steps, as the loop replays them."""
    masks = [None if step.mask is None else torch.zeros(tokens, dtype=torch.bool) for step in steps]
    for mask, step in zip(masks, steps, strict=True):
        if mask is not None:
            mask[list(step.mask)] = True
    return [(step.drawn.stage, mask) for step, mask in zip(steps, masks, strict=True)]


@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
@pytest.mark.parametrize(("kind", "name", "size", "guidance"), ALL)
def test_the_pipeline_is_the_plain_loop(kind, name, size, guidance):
    policy = POLICIES[name]
    latents, trace = stitched_run(kind, policy, size, guidance)
    assert max(step.plan.stage for step in trace.records) > 1
    if name == "two masks":  # the images of the batch are in different stages
        assert len({tuple(step.plan.stage for step in trace.of(image)) for image in range(IMAGES)}) > 1
    for image in range(IMAGES):
        steps = trace.of(image)
        replay = as_replay(steps, trace.tokens)
        x, decisions, distances = loop(kind, policy, size, guidance, image, replay=replay)
        same(latents[image, None], x, 1e-4)
        for step, distance in zip(steps[1:], distances, strict=True):
            assert step.distance == pytest.approx(distance, rel=1e-3)
        ours = [(stage, mask) for stage, mask, _ in decisions]
        seen = [(score, last) for (*_, score), last in zip(decisions, [None, None, *distances[:-1]], strict=True)]
        assert differences(ours, seen, steps, policy.thresholds) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_loop_decides_alike_on_its_own(kind):
    policy = POLICIES["two masks"]
    latents, trace = stitched_run(kind, policy, "odd", 4.0)
    for image in range(IMAGES):
        x, decisions, _ = loop(kind, policy, "odd", 4.0, image)
        assert [stage for stage, *_ in decisions] == [step.plan.stage for step in trace.of(image)]
        same(latents[image, None], x, 1e-4)


def test_the_example_is_short_independent_and_runs(capsys):
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    assert "hybridstitch" not in text
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.startswith("stages [0, 0, 1")
    assert "D [" in printed
