"""SPEC §8.3 and §8.5: a batch is its images drawn alone; a trace replays to the same picture, and without torch."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridstitch import HybridStitch, Replay, Trace
from hybridstitch.policies.seen import Seen
from seen import SIZES, noise, pair, same, single
from small_models import KINDS, generate

IMAGES, STEPS = 3, 10
POLICY = HybridStitch(masks=(0.4, 0.2), thresholds=(0.51, 0.5, 0.4))
VARIANTS = {
    "as it is": {"thresholds": (0.65, 0.65, 0.5)},
    "cached text": {"text": "cached"},
    "one branch": {"branches": "cond"},
    "cached text, one branch": {"text": "cached", "branches": "cond"},
    "dense": {"masked_compute": False},
    "frozen masks": {"update_mask": False},
}
ALL = [(kind, size, g, "as it is") for kind in KINDS for size in SIZES for g in (4.0, 1.0)]
ALL += [("sd3.5-medium", "odd", 4.0, name) for name in VARIANTS if name != "as it is"]
WITHOUT_TORCH = """
import json, sys
from hybridstitch.policies.parse import parse
from hybridstitch.policies.trace import Trace
trace = Trace.load(sys.argv[1])
plans = trace.replay(parse(trace.policy))
assert plans == tuple(tuple(step.plan for step in trace.of(image)) for image in range(trace.images))
print(json.dumps([sorted({"torch", "diffusers", "numpy"} & set(sys.modules)), len(plans), trace.summary()]))
"""


def batch(policy, kind, size, guidance):
    """Three images together: their latents and trace."""
    pipe = pair(policy, kind)
    start = noise(IMAGES, SIZES[size])
    call = {"images": IMAGES, "steps": STEPS, "size": SIZES[size], "guidance_scale": guidance, "latents": start}
    return generate(pipe, **call), pipe.transformer.trace


@pytest.mark.parametrize(("kind", "size", "guidance", "variant"), ALL)
def test_a_batch_is_its_images_drawn_alone(kind, size, guidance, variant):
    policy = replace(POLICY, **VARIANTS[variant])
    latents, trace = batch(policy, kind, size, guidance)
    stages = [[step.plan.stage for step in trace.of(image)] for image in range(IMAGES)]
    assert any(len(set(step)) > 1 for step in zip(*stages, strict=True))  # one batch, drawn in mixed stages
    replayed, _ = batch(Replay(trace.plans(masks=True)), kind, size, guidance)
    same(replayed, latents, 1e-4)
    for image, plans in enumerate(trace.plans(masks=True)):
        call = {**single(image, IMAGES, SIZES[size]), "steps": STEPS, "guidance_scale": guidance}
        pipe = pair(Replay((plans,)), kind)
        same(generate(pipe, **call), latents[image, None], 1e-4)
        alone = pipe.transformer.trace.of(0)
        assert [step.large_tokens for step in alone] == [step.large_tokens for step in trace.of(image)]
        pipe.transformer.policy = policy  # deciding for itself, it decides alike
        same(generate(pipe, **call), latents[image, None], 1e-4)
        alone = pipe.transformer.trace.of(0)
        assert [(s.plan, s.mask) for s in alone] == [(s.plan, s.mask) for s in trace.of(image)]


@pytest.mark.parametrize("update_mask", [True, False])
def test_recorded_stages_are_replayed_with_one_thing_changed(update_mask):
    """StaticMask and FullLarge replay the stages of the row they ablate (SPEC §6)."""
    _, trace = batch(POLICY, "sd3", "square", 4.0)
    policy = Replay(trace.plans())
    _, again = batch(policy, "sd3", "square", 4.0)
    assert [step.plan for step in again.records] == [step.plan for step in trace.records]
    assert [step.mask for step in again.records] == [step.mask for step in trace.records]

    def frozen(plan):
        strokes = (replace(s, region=replace(s.region, frozen=not update_mask)) for s in plan.strokes)
        return replace(plan, strokes=tuple(strokes))

    changed = tuple(tuple(map(frozen, plans)) for plans in trace.plans())
    _, ablated = batch(Replay(changed), "sd3", "square", 4.0)
    assert [step.plan.stage for step in ablated.records] == [step.plan.stage for step in trace.records]
    assert ([step.mask for step in ablated.records] == [step.mask for step in trace.records]) == update_mask


@pytest.mark.parametrize("kind", KINDS)
def test_stages_only_rise_and_a_saved_trace_replays_without_torch(kind, tmp_path):
    _, trace = batch(POLICY, kind, "odd", 4.0)
    for image in range(IMAGES):
        stages = [step.plan.stage for step in trace.of(image)]
        assert all(0 <= after - before <= 1 for before, after in pairwise(stages))
        assert stages[0] == stages[1] == 0
        assert stages[-1] >= 2
    trace.save(tmp_path / "trace.json", masks=True)
    assert Trace.load(tmp_path / "trace.json") == trace
    assert trace.replay(POLICY) == tuple(tuple(step.plan for step in trace.of(image)) for image in range(IMAGES))
    if kind != "sd3":
        return
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "trace.json")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    heavy, images, summary = json.loads(run.stdout)
    assert heavy == []
    assert images == IMAGES
    assert summary == trace.summary()


def rule(distances, steps, tau, min_large, patience):
    """SPEC §3, written again: the stage of each step."""
    stage, stages = 0, []
    for step in range(steps):
        recent = distances[:step][-patience:]
        low = stage < len(tau) and len(recent) == patience and all(d is not None and d < tau[stage] for d in recent)
        if low and (stage > 0 or (step >= 2 and step >= min_large * steps)):
            stage += 1
        stages.append(stage)
    return stages


@given(st.data())
def test_any_distances_give_the_stages_of_the_rule(data):
    count = data.draw(st.integers(1, 3))
    share = st.floats(0.05, 0.9, allow_subnormal=False)
    masks = tuple(sorted(data.draw(st.lists(share, min_size=count, max_size=count, unique=True)), reverse=True))
    tau = tuple(sorted(data.draw(st.lists(share, min_size=count + 1, max_size=count + 1)), reverse=True))
    policy = HybridStitch(
        masks=masks,
        thresholds=tau,
        min_large=data.draw(st.sampled_from([0.0, 0.1, 0.25, 0.5])),
        patience=data.draw(st.integers(1, 3)),
    )
    distances = [None, *data.draw(st.lists(st.none() | st.floats(0, 1), min_size=4, max_size=30))]
    steps, stages = len(distances), [0]
    for step in range(steps):
        seen = Seen(step=step, steps=steps, stage=stages[-1], distances=tuple(distances[:step]))
        stages.append(policy.decide(seen).stage)
    assert stages[1:] == rule(distances, steps, tau, policy.min_large, policy.patience)
    assert all(0 <= after - before <= 1 for before, after in pairwise(stages))
