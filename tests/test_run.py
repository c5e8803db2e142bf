"""A run's decisions: any policy on real models replays from its trace, rises stage by stage, and refuses odd calls."""

import json
import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridstitch import StitchWarning, Trace, stitch
from hybridstitch.drawing.call import Models
from hybridstitch.drawing.decide import ByPolicy
from hybridstitch.drawing.record import Drawn, recorded
from hybridstitch.drawing.run import Run
from hybridstitch.drawing.stepped import Stepped
from hybridstitch.errors import RunError
from hybridstitch.families.sd3 import SD3Family
from hybridstitch.policies.methods import Schedule
from hybridstitch.policies.parse import parse
from hybridstitch.policies.replay import Replay
from hybridstitch.policies.reuse import Reuse
from small_models import generate, pipeline, prompt, small
from strategies import FITTING


@pytest.fixture(scope="module")
def pipe():
    pipe = pipeline()
    stitch(pipe, small())
    return pipe


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(policy=FITTING, steps=st.integers(6, 9), images=st.integers(1, 2), seed=st.integers(0, 9))
def test_a_real_run_rises_stage_by_stage_and_replays(pipe, policy, steps, images, seed):
    pipe.transformer.policy = policy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StitchWarning)
        generate(pipe, steps=steps, images=images, seed=seed, size=(16, 16))
    trace = pipe.transformer.trace
    assert len(trace.records) == steps * images
    if (policy.of if isinstance(policy, Reuse) else policy).adaptive:
        for image in range(images):
            stages = [step.plan.stage for step in trace.of(image)]
            assert stages[0] == 0
            assert all(b - a in (0, 1) for a, b in pairwise(stages))
    read = Trace.from_json(json.loads(json.dumps(trace.to_json(masks=True))))
    assert read == trace
    decided = tuple(tuple(step.plan for step in trace.of(image)) for image in range(images))
    assert read.replay(policy) == decided
    assert read.replay(parse(read.policy)) == decided


def test_a_trace_counts_what_the_large_model_drew(pipe):
    pipe.transformer.policy = "L2 H2@0.25 R2@0.5 - S*"
    generate(pipe, steps=8)
    steps = pipe.transformer.trace.of(0)
    assert [step.large_tokens for step in steps] == [64, 64, 16, 16, 32, 32, 0, 0]
    assert [None if step.mask is None else len(step.mask) for step in steps] == [None, None, 16, 16, 32, 32, None, None]
    assert [str(step.drawn) for step in steps] == ["L", "L", *["S + L@0.25"] * 2, *["L@0.5"] * 2, "-", "S"]
    assert all(step.fallback is None or "keys and values" in step.fallback for step in steps)


def test_keys_and_values_have_one_memory_until_the_large_model_is_over(pipe, monkeypatch):
    rooms, held = [], []
    room, begin = SD3Family.room, Run._begin

    def counted(family, *given, **where):
        rooms.append(family)
        return room(family, *given, **where)

    def watched(run, inputs, decider):
        begin(run, inputs, decider)
        held.append(any(cache.layers for cache in run._caches.values()))

    monkeypatch.setattr(SD3Family, "room", counted)
    monkeypatch.setattr(Run, "_begin", watched)
    pipe.transformer.policy = "L2 R@0.5 - L R@0.5 -2 L S2"
    generate(pipe, steps=11)
    assert len(rooms) == 1
    assert held == [False, *[True] * 9, False]


def test_a_static_mask_is_chosen_once_a_stage(pipe):
    pipe.transformer.policy = Schedule("L2 H3@0.25 H*@0.5", update_mask=False)
    generate(pipe, steps=8)
    masks = [step.mask for step in pipe.transformer.trace.of(0)]
    assert len(set(masks[2:5])) == 1
    assert len(set(masks[5:])) == 1
    assert masks[4] != masks[5]
    pipe.transformer.policy = Schedule("L2 H*@0.25")
    generate(pipe, steps=8)
    assert len({step.mask for step in pipe.transformer.trace.of(0)[2:]}) > 1


def test_a_mask_over_a_repeated_prediction_follows_the_latent_only_by_its_literal_signal(pipe):
    """Outside the mask a repeated prediction leaves the denoised estimate where it is: no token there can enter it."""
    masks = {}
    for signal in ("denoised", "latent"):
        pipe.transformer.policy = Schedule("L3 R*@0.25", signal=signal)
        generate(pipe, steps=10)
        masks[signal] = {step.mask for step in pipe.transformer.trace.of(0)[3:]}
    assert len(masks["denoised"]) == 1
    assert len(masks["latent"]) > 1


def test_a_step_that_failed_before_it_drew_is_not_recorded():
    assert recorded([Drawn([], [])], 64) == ()


# --- calls that no pipeline makes ---


def run(policy="large", *, measure=True, steps=4):
    """A run without a pipeline."""
    family, decider = SD3Family(pipeline().transformer), ByPolicy(parse(policy))
    family.attach()
    measured = decider.policy.measured if measure else None
    made = Run(Models(family, small()), steps, measured=measured, keep=decider.policy.can_mask)
    return made, decider


def inputs(rows, timestep=900.0):
    text = prompt(rows)
    return {
        "hidden_states": torch.randn(rows, 4, 16, 16, generator=torch.Generator().manual_seed(1)),
        "encoder_hidden_states": text["prompt_embeds"],
        "pooled_projections": text["pooled_prompt_embeds"],
        "timestep": torch.full((rows,), timestep),
    }


def stepped(run, images, step):
    """The scheduler makes a step."""
    latent = torch.ones(images, 4, 16, 16) * (step + 1)
    run.observe(
        Stepped(latent=latent, prediction=latent / 2, sigma=0.5, returned=latent * 0.9, clean=latent - 0.5 * latent / 2)
    )


@torch.no_grad()
def test_a_batch_that_shrinks_mid_run_is_refused():
    odd, decider = run()
    odd.draw(inputs(2), decider)
    stepped(odd, 2, 0)
    odd.draw(inputs(2, 800.0), decider)
    with pytest.raises(RunError, match="the batch changed from 2 to 1 images in the middle of a run"):
        stepped(odd, 1, 1)


@torch.no_grad()
def test_rows_that_do_not_divide_are_refused():
    odd, decider = run()
    odd.draw(inputs(2), decider)
    stepped(odd, 2, 0)
    with pytest.raises(RunError, match="step 1 has 3 rows, which do not divide among 2 images"):
        odd.draw(inputs(3, 800.0), decider)


@torch.no_grad()
def test_a_mask_without_a_measured_change_is_refused():
    blind, decider = run("L2 H*@0.5", measure=False)
    for step in range(2):
        blind.draw(inputs(1, 900.0 - step), decider)
        stepped(blind, 1, step)
    with pytest.raises(RunError, match="step 2 asks for a mask, but no change was measured before it"):
        blind.draw(inputs(1, 800.0), decider)


@torch.no_grad()
def test_two_equal_images_without_guidance_are_told_apart_once_the_scheduler_steps():
    """Two equal rows look like one image with guidance until then."""
    twins, decider = run()
    call = inputs(2)
    call["hidden_states"] = call["hidden_states"][:1].repeat(2, 1, 1, 1)
    twins.draw(call, decider)
    assert twins.images == 1
    stepped(twins, 2, 0)
    assert twins.images == 2
    trace = twins.trace(str(decider.policy))
    assert [step.image for step in trace.records] == [0, 1]
    assert trace.records[0].seconds == pytest.approx(trace.records[1].seconds)


@torch.no_grad()
def test_a_run_that_ends_early_has_the_steps_it_made():
    short, decider = run("L*")
    for step in range(2):
        short.draw(inputs(1, 900.0 - step), decider)
        stepped(short, 1, step)
    short.finish()
    assert len(short.trace(str(decider.policy)).records) == 2
    assert short.trace(str(decider.policy)).steps == 4


def test_schedules_are_checked_before_anything_is_drawn(pipe):
    pipe.transformer.policy = "L2"
    calls = []
    handle = pipe.transformer.large.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match="fills 2 steps, this run has 4"):
        generate(pipe, steps=4)
    handle.remove()
    assert not calls
    assert Schedule("L2 S*").check(4) is None


def test_skip_layer_guidance_of_images_in_different_stages():
    """One image drawn by L everywhere, one by L on a mask, one by S: each as it is drawn alone.

    In float64: random models amplify the rounding of float32, the plain pipeline's own as well, to whole per cents.
    """
    pipe, second = pipeline(), small().double()
    pipe.transformer.double()
    stitch(pipe, second)
    recorded = []
    for program in ("L*", "L3 H*@0.25", "L3 S*"):
        pipe.transformer.policy = program
        generate(pipe, steps=6, images=3)
        recorded.append(pipe.transformer.trace.plans(masks=True)[len(recorded)])
    skipping = {"skip_guidance_layers": [1], "skip_layer_guidance_scale": 2.0, "skip_layer_guidance_stop": 1.0}
    latents = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(2)).double()
    text = prompt(3, dtype=torch.float64)

    def drawn(images):
        pipe.transformer.policy = Replay(tuple(recorded[image] for image in images))
        mine = {name: value[images] for name, value in text.items()}
        return generate(pipe, steps=6, latents=latents[images], **mine, **skipping)

    together = drawn([0, 1, 2])
    for image in range(3):
        alone = drawn([image])
        assert (together[image] - alone[0]).abs().max() <= 1e-6 * alone.abs().max()
