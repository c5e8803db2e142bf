"""Watching a scheduler's steps: told by name, copies left alone, and found as it was afterwards."""

import copy
import gc
import inspect
import pickle

import pytest
import torch
from diffusers import CogVideoXDPMScheduler, FlowMatchEulerDiscreteScheduler

from hybridstitch import unstitch
from hybridstitch.pair.observer import Observer, unwatch, watch
from small_models import generate, pipeline, stitched

HYBRID = "L3 H3@0.3 S2"


class Steps(list):
    """Keeps what it is told."""

    __hash__ = object.__hash__

    def observe(self, step):
        self.append(step)

    def forgets(self):
        return ()


def watched():
    scheduler, seen = FlowMatchEulerDiscreteScheduler(shift=3.0), Steps()
    watch(scheduler, seen)
    scheduler.set_timesteps(4)
    return scheduler, seen


def step(scheduler):
    timestep = scheduler.timesteps[scheduler.step_index or 0]
    return scheduler.step(torch.ones(1, 4, 2, 2), timestep, torch.zeros(1, 4, 2, 2))


COPIES = {
    "shallow": copy.copy,
    "deep": copy.deepcopy,
    "deep of shallow": lambda scheduler: copy.deepcopy(copy.copy(scheduler)),
    "shallow of deep": lambda scheduler: copy.copy(copy.deepcopy(scheduler)),
    "pickled": lambda scheduler: pickle.loads(pickle.dumps(scheduler)),
    "pickled shallow": lambda scheduler: pickle.loads(pickle.dumps(copy.copy(scheduler))),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_steps_itself_and_nobody_watches_it(name):
    scheduler, seen = watched()
    step(scheduler)
    copied = COPIES[name](scheduler)
    assert "step" not in vars(copied)
    assert type(copied) is FlowMatchEulerDiscreteScheduler
    assert {**vars(copied), "timesteps": 0, "sigmas": 0} == {
        name: value
        for name, value in {**vars(scheduler), "timesteps": 0, "sigmas": 0}.items()
        if name not in ("step", "__reduce_ex__")
    }
    assert torch.equal(copied.sigmas, scheduler.sigmas)
    step(copied)
    assert (scheduler.step_index, copied.step_index, len(seen)) == (1, 2, 1)
    others = Steps()
    watch(copied, others)
    step(copied)
    step(scheduler)
    assert (scheduler.step_index, copied.step_index, len(seen), len(others)) == (2, 3, 2, 1)
    unwatch(copied, others)
    assert not {"step", "__reduce_ex__"} & vars(copied).keys()
    assert isinstance(scheduler.step, Observer)


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_outlives_what_it_was_made_of(name):
    scheduler, seen = watched()
    copied = COPIES[name](scheduler)
    del scheduler
    gc.collect()
    step(copied)
    assert (copied.step_index, len(seen)) == (1, 0)


def test_a_copy_keeps_a_step_that_was_replaced_on_the_object():
    scheduler, told = FlowMatchEulerDiscreteScheduler(), []
    mine = scheduler.step = lambda *args, **kwargs: told.append(args)
    watch(scheduler, Steps())
    assert vars(copy.copy(scheduler))["step"] is mine


@pytest.mark.parametrize("name", COPIES)
def test_a_copied_scheduler_in_another_pipeline_after_unstitching(name):
    expected = generate(pipeline())
    pipe, other = stitched(HYBRID), pipeline()
    generate(pipe)
    other.scheduler = COPIES[name](pipe.scheduler)
    assert torch.equal(generate(other), expected)
    unstitch(pipe)
    assert torch.equal(generate(other), expected)
    assert torch.equal(generate(pipe), expected)
    assert "step" not in vars(pipe.scheduler)


def test_two_pipelines_share_one_scheduler():
    """One is stitched, the other not; then both are, and one after the other is let go."""
    expected = generate(pipeline())
    pipe, other = stitched(HYBRID), pipeline()
    drawn = generate(pipe)
    other.scheduler = pipe.scheduler
    assert torch.equal(generate(other), expected)
    assert len(pipe.transformer.trace.records) == 8  # the other's steps are not ours
    assert torch.equal(generate(pipe), drawn)
    unstitch(pipe)
    assert torch.equal(generate(other), expected)
    seen, others = Steps(), Steps()
    for listener in (seen, others):
        watch(pipe.scheduler, listener)
    generate(other)
    unwatch(pipe.scheduler, seen)
    generate(other)
    assert (len(seen), len(others)) == (8, 16)
    unwatch(pipe.scheduler, others)
    assert "step" not in vars(pipe.scheduler)


@pytest.mark.parametrize("named", [True, False])
def test_arguments_are_told_by_name(named):
    """CogVideoX' scheduler takes its last estimate second."""
    scheduler, seen = CogVideoXDPMScheduler(), Steps()
    expected = inspect.signature(scheduler.step)
    watch(scheduler, seen)
    assert inspect.signature(scheduler.step) == expected
    scheduler.set_timesteps(4)
    output, sample = torch.ones(1, 2, 4, 2, 2), torch.zeros(1, 2, 4, 2, 2)
    given = {
        "model_output": output,
        "old_pred_original_sample": None,
        "timestep": scheduler.timesteps[0],
        "timestep_back": None,
        "sample": sample,
    }
    returned = scheduler.step(**given) if named else scheduler.step(*given.values())
    assert seen[0].prediction is output
    assert seen[0].latent is sample
    assert seen[0].returned is returned[0]
    assert seen[0].clean is None  # it adds noise


def test_listeners_are_held_weakly():
    scheduler, seen = watched()
    del seen
    gc.collect()
    step(scheduler)
    assert scheduler.step_index == 1
