"""Policies drawn together give the very pictures that the pipeline draws, each distinct step drawn once."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

import flux_models
from hybridstitch import HybridStitch, LargeOnly, Schedule, SmallOnly, SRDiffusion, TStitch
from hybridstitch.errors import PolicyError, StitchError
from hybridstitch.measure.lockstep import draw_together
from hybridstitch.measure.start import decode, prepare
from hybridstitch.mini.opened import open_mini
from hybridstitch.policies.policy import Policy
from hybridstitch.policies.replay import Replay
from mini_folder import save

PROMPT = "a big dog left of a small cat on a meadow"
STEPS = 8
POLICIES: dict[str, Policy] = {
    "large": LargeOnly(),
    "small": SmallOnly(),
    "t-stitch": TStitch(0.4),
    "sr": SRDiffusion(threshold=10.0, min_large=0.3),
    "hybrid": HybridStitch(masks=(0.3,), thresholds=(10.0, 0.001), min_large=0.4),
    "two masks": HybridStitch(masks=(0.5, 0.2), thresholds=(10.0, 10.0, 10.0), min_large=0.4),
    "static": HybridStitch(masks=(0.3,), thresholds=(10.0, 0.001), min_large=0.4, update_mask=False),
    "program": Schedule("L4 H2@0.3 S2"),
    "cached": Schedule("L4 H2@0.3 S2", text="cached"),
    "carried": Schedule("L4 H2@0.3 S2", text="cached", carry=0.9),
    "carried less": Schedule("L4 H2@0.3 S2", text="cached", carry=0.95, follow=0.25),
    "region": Schedule("L3 R2@0.5 L R2@0.5", signal="latent"),
    "repeat": Schedule("L4 - L - S1"),
}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    opened = open_mini(folder=save(tmp_path_factory.mktemp("mini")))
    opened.set_progress_bar_config(disable=True)
    return opened


def by_pipeline(pipe: Any, policy: Policy, guidance: float, output: str) -> Any:
    pipe.transformer.policy = policy
    generator = torch.Generator().manual_seed(3)
    call = {"num_inference_steps": STEPS, "guidance_scale": guidance, "generator": generator, "output_type": output}
    return pipe(PROMPT, **call).images


@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_every_policy_draws_what_the_pipeline_draws(pipe: Any, guidance: float) -> None:
    start = prepare(pipe, PROMPT, steps=STEPS, guidance=guidance, seed=3)
    drawn = draw_together(pipe, start, POLICIES)
    assert list(drawn) == list(POLICIES)
    for name, policy in POLICIES.items():
        assert torch.equal(drawn[name].latent, by_pipeline(pipe, policy, guidance, "latent")), name
        trace = pipe.transformer.trace
        assert drawn[name].trace.plans(masks=True) == trace.plans(masks=True), name
        assert [r.distance for r in drawn[name].trace.records] == [r.distance for r in trace.records], name
        assert drawn[name].trace.policy == str(policy)
        assert drawn[name].trace.flags == trace.flags


def test_the_picture_is_the_pipelines(pipe: Any) -> None:
    start = prepare(pipe, PROMPT, steps=STEPS, guidance=4.0, seed=3)
    picture = decode(pipe, start, draw_together(pipe, start, {"large": LargeOnly()})["large"].latent)
    assert np.array_equal(picture, np.asarray(by_pipeline(pipe, LargeOnly(), 4.0, "pil")[0]))


def test_shared_steps_are_drawn_once(pipe: Any) -> None:
    calls: Counter[str] = Counter()
    models = {"L": pipe.transformer.large, "S": pipe.transformer.small}
    handles = [m.register_forward_hook(lambda *_, name=n: calls.update([name])) for n, m in models.items()]
    start = prepare(pipe, PROMPT, steps=STEPS, guidance=4.0, seed=3)
    programs = {name: Schedule(name) for name in ("L8", "L6 S2", "L6 S1 L1", "L4 S4")}
    try:
        drawn = draw_together(pipe, start, programs)
    finally:
        for handle in handles:
            handle.remove()
    assert calls == {"L": 8 + 1, "S": 4 + 2}
    assert drawn["L6 S2"].trace.records[0].seconds == drawn["L8"].trace.records[0].seconds > 0


def test_a_replayed_trace_draws_the_same(pipe: Any) -> None:
    start = prepare(pipe, PROMPT, steps=STEPS, guidance=4.0, seed=3)
    first = draw_together(pipe, start, {"hybrid": POLICIES["hybrid"]})["hybrid"]
    again = draw_together(pipe, start, {"again": Replay(first.trace.plans(masks=True))})["again"]
    assert torch.equal(first.latent, again.latent)


def test_preparing_draws_nothing_and_leaves_the_pipeline_as_it_was(pipe: Any) -> None:
    before = by_pipeline(pipe, LargeOnly(), 4.0, "latent")
    bar = dict(pipe._progress_bar_config)
    prepare(pipe, PROMPT, steps=STEPS, guidance=4.0, seed=5)
    assert pipe._progress_bar_config == bar
    assert torch.equal(by_pipeline(pipe, LargeOnly(), 4.0, "latent"), before)


def test_other_numbers_of_steps_and_noise(pipe: Any) -> None:
    short = prepare(pipe, PROMPT, steps=4, guidance=4.0, seed=3)
    other = prepare(pipe, PROMPT, steps=4, guidance=4.0, seed=4)
    assert short.steps == 4
    assert not torch.equal(short.latent, other.latent)
    with pytest.raises(PolicyError, match="steps"):
        draw_together(pipe, short, {"too long": Schedule("L4 S4")})


def test_a_plain_pipeline_is_refused(pipe: Any) -> None:
    class Plain:
        transformer = pipe.transformer.large

    with pytest.raises(StitchError, match="not stitched"):
        prepare(Plain(), PROMPT, steps=4, guidance=4.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_latents_and_embedded_guidance(dtype: torch.dtype) -> None:
    pipe = flux_models.stitched("L3 H2@0.3 S*", dtype)
    asked = {"height": 32, "width": 24, "true_cfg_scale": 1.0, **flux_models.embeddings(1, dtype)}
    start = prepare(pipe, None, steps=6, guidance=3.5, seed=7, **asked)
    drawn = draw_together(pipe, start, {"masks": pipe.transformer.policy, "few": Schedule("L2 S4")})
    for name, one in drawn.items():
        pipe.transformer.policy = one.trace.policy
        assert torch.equal(one.latent, flux_models.generate(pipe, guidance_scale=3.5)), name
        picture = flux_models.generate(pipe, guidance_scale=3.5, output_type="pil")[0]
        assert np.array_equal(decode(pipe, start, one.latent), np.asarray(picture))
