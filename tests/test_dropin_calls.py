"""Drop-in, the course of a call: callbacks, interruption and guidance."""

import pytest
import torch

from dropin import ADAPTIVE, HYBRID, NO_EMBEDDINGS, after_each_step, check_as_if_alone, noise, same, tokens_of
from hybridstitch import stitch
from small_models import POOLED, TEXT, TEXT_WIDTH, generate, pipeline, prompt, small, stitched, worded


@pytest.mark.dropin("callbacks")
def test_a_callback_is_called_after_each_step_with_its_latents():
    assert torch.equal(after_each_step(stitched()), after_each_step(pipeline()))

    pipe, drawn, seen = stitched(HYBRID), [], []

    def watch(given, step, timestep, tensors):
        assert given is pipe
        drawn.append([str(s.drawn) for s in pipe.transformer.trace.records])  # the trace of the run under way
        seen.append((step, timestep.item(), tensors["latents"]))
        return tensors

    out = generate(pipe, callback_on_step_end=watch)
    expected = ["L"] * 3 + ["S + L@0.3"] * 3 + ["S"] * 2
    assert drawn == [expected[: i + 1] for i in range(8)]
    assert [(step, timestep) for step, timestep, _ in seen] == list(enumerate(pipe.scheduler.timesteps.tolist()))
    assert seen[-1][2] is out
    assert torch.equal(out, generate(pipe))


@pytest.mark.dropin("callback_on_step_end_tensor_inputs")
def test_a_callback_may_read_and_replace_every_tensor_the_pipeline_offers():
    names = pipeline()._callback_tensor_inputs
    corner = (slice(None), slice(None), slice(0, 4), slice(0, 4))  # tokens 0, 1, 8 and 9 of 8×8

    def change(pipe, step, timestep, tensors):
        assert {"latents", "prompt_embeds", "pooled_prompt_embeds"} <= set(tensors) == set(names)
        assert tensors["prompt_embeds"].shape == (2, TEXT, TEXT_WIDTH)
        assert tensors["pooled_prompt_embeds"].shape == (2, POOLED)
        latents = tensors["latents"].clone()
        latents[corner] = 10.0 * (step + 1)
        return {"latents": latents, "prompt_embeds": tensors["prompt_embeds"] * 1.1}

    call = {"callback_on_step_end": change, "callback_on_step_end_tensor_inputs": names}
    changed = same(**call)
    assert not torch.equal(changed, generate(pipeline()))

    pipe = stitched(HYBRID)
    assert torch.equal(generate(pipe, **call)[corner], changed[corner])
    masks = [step.mask for step in pipe.transformer.trace.records if step.mask]
    assert len(masks) == 3
    assert not set().union(*masks) & {0, 1, 8, 9}  # overwritten tokens moved most, and are not the model's to draw


@pytest.mark.dropin("a callback that switches guidance off mid-run")
@pytest.mark.parametrize("images", [1, 2])
def test_guidance_switched_off_by_a_callback(images):
    def switch_off(pipe, step, timestep, tensors):
        if step != 3:
            return {}
        pipe._guidance_scale = 0.0
        return {name: tensors[name].chunk(2)[-1] for name in ("prompt_embeds", "pooled_prompt_embeds")}

    call = {
        "images": images,
        "callback_on_step_end": switch_off,
        "callback_on_step_end_tensor_inputs": ["prompt_embeds", "pooled_prompt_embeds"],
    }
    without = same(**call)
    assert not torch.equal(without, generate(pipeline(), images=images))

    pipe = stitched(HYBRID)
    generate(pipe, **call)
    for image in range(images):  # the cache has no rows of the smaller batch yet: one dense step fills it
        steps = pipe.transformer.trace.of(image)
        assert [str(s.drawn) for s in steps] == ["L", "L", "L", "S + L@0.3", "L", "S + L@0.3", "S", "S"]
        assert [s.index for s in steps if s.fallback] == [4]
        assert [s.large_tokens for s in steps] == [64, 64, 64, 19, 64, 19, 0, 0]


@pytest.mark.dropin("interrupt")
def test_an_interrupted_run_stops_drawing_and_the_next_run_is_whole():
    def interrupt(pipe, step, timestep, tensors):
        pipe._interrupt = step == 4
        return {}

    plain = generate(pipeline(), callback_on_step_end=interrupt)
    for policy in ("large", HYBRID, ADAPTIVE):
        pipe = stitched(policy)
        whole = generate(pipe)
        stopped = generate(pipe, callback_on_step_end=interrupt)
        assert policy != "large" or torch.equal(stopped, plain)
        trace = pipe.transformer.trace
        assert [s.index for s in trace.records] == [0, 1, 2, 3, 4]
        assert trace.steps == 8
        assert trace.records[-1].distance is not None
        assert torch.equal(generate(pipe), whole)


@pytest.mark.dropin("negative prompts")
def test_negative_prompts_are_guided_away_from():
    call = {**NO_EMBEDDINGS, "prompt": "a dog", "negative_prompt": "a cat"}
    expected = generate(worded(pipeline()), **call)
    pipe = worded(pipeline())
    stitch(pipe, small(), "large")
    assert torch.equal(generate(pipe, **call), expected)
    assert not torch.equal(generate(pipe, **{**call, "negative_prompt": None}), expected)

    pipe.transformer.policy = HYBRID
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    encoded = pipe.encode_prompt("a dog", None, None, negative_prompt="a cat", max_sequence_length=2)
    assert torch.equal(generate(pipe, **call), generate(pipe, **dict(zip(names, encoded, strict=True))))
    assert not torch.equal(generate(pipe, **call), generate(pipe, **{**call, "negative_prompt": None}))


@pytest.mark.dropin("guidance off")
def test_guidance_off():
    same(guidance_scale=1.0, images=2)
    pipe = stitched(ADAPTIVE).to(torch.float64)
    start = noise(1).expand(2, -1, -1, -1)
    twice = generate(pipe, guidance_scale=1.0, images=2, latents=start.clone())  # two prompts, one start: B is 2
    trace = pipe.transformer.trace
    assert trace.images == 2
    for image in range(2):
        assert any(s.mask for s in trace.of(image))
        text = {name: rows[image, None].double() for name, rows in prompt(2).items()}
        check_as_if_alone(twice, pipe, trace, image, guidance_scale=1.0, latents=start[:1].clone(), **text)


@pytest.mark.dropin("skip-layer guidance")
def test_skip_layer_guidance_acts_where_the_large_model_drew():
    skip = {"skip_guidance_layers": [1], "skip_layer_guidance_start": 0.01, "skip_layer_guidance_stop": 0.9}
    assert not torch.equal(same(**skip, images=2), generate(pipeline(), images=2))

    pipe = stitched("small")
    assert torch.equal(generate(pipe, **skip), generate(pipe))

    pipe = stitched(HYBRID)  # at step 3 only: 0.3·8 < 3 < 0.4·8
    third = {**skip, "skip_layer_guidance_start": 0.3, "skip_layer_guidance_stop": 0.4}
    with_skip, without = after_each_step(pipe, **third), after_each_step(pipe)
    assert torch.equal(with_skip[:3], without[:3])
    assert tokens_of(with_skip[3, 0] != without[3, 0]) == pipe.transformer.trace.of(0)[3].mask
