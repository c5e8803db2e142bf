"""Drop-in, the pipelines around a pair: other kinds of pipeline, threads, schedulers, failures and copies."""

import copy
import functools
import itertools
import threading

import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
)

from dropin import ADAPTIVE, DRAWN, HYBRID, drawn, quiet
from hybridstitch import stitch, unstitch
from small_models import generate, pipeline, small, stitched, vae


def picture():
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4)) * 2 - 1


@pytest.mark.dropin("Img2Img(**pipe.components)")
def test_image_to_image_from_the_components():
    call = {"image": picture(), "strength": 0.75}  # 6 of the 8 steps
    expected = generate(quiet(StableDiffusion3Img2ImgPipeline(**pipeline().components)), **call)
    pipe = stitched()
    other = quiet(StableDiffusion3Img2ImgPipeline(**pipe.components))
    assert torch.equal(generate(other, **call), expected)
    assert torch.equal(generate(pipe), generate(pipeline()))  # the first pipeline still draws

    del pipe  # nobody holds it any more: the scheduler is found all the same
    other.transformer.policy = "L2 H2@0.3 S2"
    hybrid = generate(other, **call)
    assert drawn(other) == ["L"] * 2 + ["S + L@0.3"] * 2 + ["S"] * 2
    assert [s.sigma for s in other.transformer.trace.records] == other.scheduler.sigmas[2:-1].tolist()
    assert torch.equal(generate(other, **call), hybrid)


@pytest.mark.dropin("Inpaint(**pipe.components)")
def test_inpainting_from_the_components():
    sixteen = {"in_channels": 16, "out_channels": 16}  # as the inpainting pipeline wants

    def plain():
        return StableDiffusion3InpaintPipeline(**{**pipeline(**sixteen).components, "vae": vae(latent_channels=16)})

    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 16:] = 1.0  # repaint the right half: token columns 4-7 of 8
    call = {"image": picture(), "mask_image": mask, "strength": 1.0}
    expected = generate(quiet(plain()), **call)
    pipe = StableDiffusion3Pipeline(**plain().components)
    stitch(pipe, small(**sixteen), "large")
    other = quiet(StableDiffusion3InpaintPipeline(**pipe.components))
    assert torch.equal(generate(other, **call), expected)

    other.transformer.policy = HYBRID
    hybrid = generate(other, **call)
    assert drawn(other) == DRAWN
    for step in other.transformer.trace.records[3:6]:
        assert all(token % 8 >= 4 for token in step.mask)  # the kept half is given, and never the model's to draw
    assert torch.equal(hybrid[..., :8], expected[..., :8])
    assert not torch.equal(hybrid[..., 8:], expected[..., 8:])


@pytest.mark.dropin("from_pipe(pipe, transformer=pipe.transformer)")
@pytest.mark.parametrize("cls", [StableDiffusion3Pipeline, StableDiffusion3Img2ImgPipeline])
def test_from_pipe(cls):
    call = {} if cls is StableDiffusion3Pipeline else {"image": picture(), "strength": 1.0}
    plain = pipeline()
    expected = generate(quiet(cls.from_pipe(plain)), **call)
    pipe = stitched()
    other = quiet(cls.from_pipe(pipe, transformer=pipe.transformer))
    assert other.transformer is pipe.transformer
    assert torch.equal(generate(other, **call), expected)
    other.transformer.policy = HYBRID
    generate(other, **call)
    assert drawn(other) == DRAWN


@pytest.mark.dropin("AutoPipelineForImage2Image.from_pipe(pipe)")
def test_auto_pipeline():
    call = {"image": picture(), "strength": 1.0}
    expected = generate(quiet(AutoPipelineForImage2Image.from_pipe(pipeline())), **call)
    pipe = stitched()
    other = quiet(AutoPipelineForImage2Image.from_pipe(pipe))
    assert other.transformer is pipe.transformer
    assert torch.equal(generate(other, **call), expected)
    other.transformer.policy = HYBRID
    generate(other, **call)
    assert drawn(other) == DRAWN


@pytest.mark.dropin("two stitched pipelines at once")
def test_a_run_within_a_run():
    first, second = stitched(HYBRID), stitched("L2 H2@0.5 S*", "sd3.5-medium")
    alone = [generate(first), generate(second, steps=6, images=2)]

    def draw_the_other(pipe, step, timestep, tensors):
        assert torch.equal(generate(second, steps=6, images=2), alone[1])
        return {}

    assert torch.equal(generate(first, callback_on_step_end=draw_the_other), alone[0])
    assert drawn(first) == DRAWN
    assert len(second.transformer.trace.records) == 12


@pytest.mark.dropin("two stitched pipelines at once")
def test_two_pairs_that_share_a_scheduler_draw_in_turn():
    first, second = stitched(HYBRID), stitched(HYBRID, "sd3.5-large")
    alone = [generate(first), generate(second)]
    second.scheduler = first.scheduler

    calls = itertools.count()

    def fail(*args):
        if next(calls) in (1, 4):
            raise ConnectionError

    for model in (first.transformer.small, first.transformer):  # within a step, and just before the scheduler's
        hook = model.register_forward_hook(fail)
        with pytest.raises(ConnectionError):
            generate(first)
        hook.remove()
        generate(second, images=2)
        assert torch.equal(generate(second), alone[1])
        assert torch.equal(generate(first), alone[0])


@pytest.mark.dropin("two threads with a pipeline each")
@pytest.mark.parametrize("in_step", [True, False])
def test_two_threads(in_step):
    pipes = [stitched(HYBRID), stitched(ADAPTIVE, "sd3.5-medium")]
    expected = [generate(pipe) for pipe in pipes]
    barrier, results = threading.Barrier(2, timeout=60), {}

    def step_together(pipe, step, timestep, tensors):
        if in_step:
            barrier.wait()
        return {}

    def draw(index):
        results[index] = [generate(pipes[index], callback_on_step_end=step_together) for _ in range(2)]

    threads = [threading.Thread(target=draw, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(2):
        assert all(torch.equal(result, expected[index]) for result in results[index])


@pytest.mark.dropin("scheduler swapped after stitching")
def test_a_swapped_scheduler_is_found_at_the_next_run():
    pipe, plain = stitched(), pipeline()
    before = pipe.scheduler
    for each in (pipe, plain):
        each.scheduler = FlowMatchEulerDiscreteScheduler.from_config(each.scheduler.config, shift=1.0)
    assert torch.equal(generate(pipe), generate(plain))
    assert "step" not in vars(before)  # left as it was found

    pipe.transformer.policy = HYBRID
    generate(pipe)
    assert drawn(pipe) == DRAWN
    assert [s.sigma for s in pipe.transformer.trace.records] == pipe.scheduler.sigmas[:-1].tolist()
    unstitch(pipe)
    assert "step" not in vars(pipe.scheduler)


@pytest.mark.dropin("scheduler deep-copied (or copied) after stitching")
@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy])
def test_a_copied_scheduler_is_stepped_and_observed(copied):
    pipe = stitched(HYBRID)
    expected, original = generate(pipe), pipe.scheduler
    pipe.scheduler = copied(original)
    before = original.step_index, original.timesteps
    assert torch.equal(generate(pipe), expected)
    assert drawn(pipe) == DRAWN
    assert pipe.scheduler.step_index == 8
    assert (original.step_index, original.timesteps) == before
    for unused in (True, False):
        pipe.scheduler = copied(pipe.scheduler)
        unused or generate(pipe)
    unstitch(pipe)
    assert not [s for s in (original, pipe.scheduler) if "step" in vars(s)]
    assert torch.equal(generate(pipe), generate(pipeline()))


@pytest.mark.dropin("an exception or KeyboardInterrupt mid-run, then a run")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["callback", "large", "small", "transformer", "scheduler"])
@pytest.mark.parametrize("policy", [HYBRID, ADAPTIVE])
def test_a_run_after_a_failed_run_is_a_run(monkeypatch, error, place, policy):
    pipe = stitched(policy)
    expected, records = generate(pipe), drawn(pipe)
    calls = itertools.count()

    def sometimes(works):
        @functools.wraps(works)
        def works_until(*args, **kwargs):
            if next(calls) == (1 if place == "small" else 4):
                raise error
            return works(*args, **kwargs)

        return works_until

    call = {}
    with monkeypatch.context() as patch:
        if place == "callback":
            call["callback_on_step_end"] = sometimes(lambda *args: {})
        else:
            owner, method = {
                "large": (pipe.transformer.large.norm_out, "forward"),  # within a masked step
                "small": (pipe.transformer.small.norm_out, "forward"),
                "transformer": (pipe.transformer, "forward"),
                "scheduler": (FlowMatchEulerDiscreteScheduler, "step"),
            }[place]
            patch.setattr(owner, method, sometimes(getattr(owner, method)))
        with pytest.raises(error):
            generate(pipe, **call)
    assert len(drawn(pipe)) < 8
    assert torch.equal(generate(pipe), expected)
    assert drawn(pipe) == records
    pipe.transformer.policy = "large"
    assert torch.equal(generate(pipe), generate(pipeline()))


@pytest.mark.dropin("deepcopy of a stitched pipeline")
def test_a_deep_copy_is_a_pair_of_its_own():
    pipe = stitched(HYBRID)
    expected = generate(pipe)
    copied = copy.deepcopy(pipe)
    for model in ("large", "small"):
        mine, theirs = getattr(pipe.transformer, model), getattr(copied.transformer, model)
        assert mine is not theirs
        assert torch.equal(next(mine.parameters()), next(theirs.parameters()))
    trace = pipe.transformer.trace
    assert torch.equal(generate(copied, seed=8), generate(pipe, seed=8))
    generate(pipe)

    copied.transformer.policy = "small"
    generate(copied)
    assert drawn(copied) == ["S"] * 8
    assert [s.drawn for s in pipe.transformer.trace.records] == [s.drawn for s in trace.records]
    unstitch(pipe)
    assert torch.equal(generate(pipe), generate(pipeline()))
    copied.transformer.policy = HYBRID
    del pipe
    assert torch.equal(generate(copied), expected)
    unstitch(copied)
    assert "step" not in vars(copied.scheduler)
    assert torch.equal(generate(copied), generate(pipeline()))


@pytest.mark.dropin("policy changed between runs")
def test_each_run_follows_the_policy_it_began_with():
    pipe = stitched(HYBRID)
    expected = generate(pipe)

    def change(pipe, step, timestep, tensors):
        pipe.transformer.policy = "small"
        return {}

    assert torch.equal(generate(pipe, callback_on_step_end=change), expected)  # from the next run on
    only_small = pipeline()
    only_small.register_modules(transformer=small())
    assert torch.equal(generate(pipe), generate(only_small))
    pipe.transformer.policy = "large"
    assert torch.equal(generate(pipe), generate(pipeline()))
    pipe.transformer.policy = ADAPTIVE
    first = generate(pipe)
    pipe.transformer.policy = HYBRID
    assert torch.equal(generate(pipe), expected)
    pipe.transformer.policy = str(ADAPTIVE)
    assert torch.equal(generate(pipe), first)
