"""What solvers of several steps remember: forgotten where the small model takes over, image by image."""

import copy

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

from hybridstitch import Engine, Replay, Schedule
from hybridstitch.measure.lockstep import draw_together
from hybridstitch.measure.start import prepare
from hybridstitch.pair.observer import Listener, watch
from hybridstitch.policies.plan import Plan, Region, Stroke
from small_models import generate, pipeline, prompt, small, stitched

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SOLVERS = {
    "UniPC": lambda: UniPCMultistepScheduler(**FLOW),
    "UniPC, third order": lambda: UniPCMultistepScheduler(**FLOW, solver_order=3),
    "DPM-Solver++": lambda: DPMSolverMultistepScheduler(**FLOW),
    "DPM-Solver++, third order": lambda: DPMSolverMultistepScheduler(**FLOW, solver_order=3),
}
SWITCH = 4


@pytest.fixture(params=("UniPC", "DPM-Solver++"))
def solver(request):
    return SOLVERS[request.param]


def by_hand(solver, first, then, forgets):
    """The plain pipeline, whose transformer is exchanged between two steps, and its solver set back if so."""
    pipe = pipeline(scheduler=solver())
    models = {"L": pipe.transformer, "S": small()}

    def exchange(pipe, step, timestep, tensors):
        if step + 1 == SWITCH:
            pipe.transformer = models[then]
            if forgets:
                pipe.scheduler.lower_order_nums = 0
                if isinstance(pipe.scheduler, UniPCMultistepScheduler):
                    pipe.scheduler.last_sample = None
        return tensors

    pipe.transformer = models[first]
    return generate(pipe, callback_on_step_end=exchange)


def test_it_is_forgotten_where_the_small_model_takes_over_and_kept_where_the_large_one_does(solver):
    pipe = stitched(f"L{SWITCH} S*", scheduler=solver())
    forgotten = generate(pipe)
    assert torch.equal(forgotten, by_hand(solver, "L", "S", forgets=True))
    pipe.transformer.engine = Engine(history="keep")
    assert torch.equal(generate(pipe), by_hand(solver, "L", "S", forgets=False))
    assert not torch.equal(generate(pipe), forgotten)
    pipe.transformer.engine, pipe.transformer.policy = Engine(), f"S{SWITCH} L*"
    assert torch.equal(generate(pipe), by_hand(solver, "S", "L", forgets=False))


class Switches(Listener):
    """Lets images forget at steps of their own."""

    def __init__(self, steps):
        self.steps, self.made = steps, 0

    def observe(self, step):
        self.made += 1

    def forgets(self):
        return [image for image, step in enumerate(self.steps) if step == self.made]


def stepped(solver, noise, outputs, steps):
    """Latents after each step of images that forget at `steps`, (T, B, …)."""
    scheduler, listener, found = solver(), Switches(steps), [noise]
    watch(scheduler, listener)
    for _ in range(2):  # the second run remembers nothing of the first
        scheduler.set_timesteps(8)
        found, listener.made = [noise], 0
        for time, output in zip(scheduler.timesteps, outputs, strict=True):
            found.append(scheduler.step(output, time, found[-1], return_dict=False)[0])
    return torch.stack(found)


def summed(equation, weights, terms):
    """UniPC's only sum over predictions, in one order whatever the batch: "k,bkc...->bc..."."""
    return (terms * weights.view(1, -1, *[1] * (terms.ndim - 2))).sum(1)


@pytest.mark.parametrize("name", SOLVERS)
def test_images_forget_where_they_switch_as_if_drawn_alone(name, monkeypatch):
    monkeypatch.setattr(torch, "einsum", summed)
    solver = SOLVERS[name]
    torch.manual_seed(0)
    noise, outputs, steps = torch.randn(3, 4, 6, 6), torch.randn(8, 3, 4, 6, 6), (3, 5, None)
    together = stepped(solver, noise, outputs, steps)
    for image, step in enumerate(steps):
        alone = stepped(solver, noise[image, None], outputs[:, image, None], (step,))
        assert torch.equal(together[:, image, None], alone)
    all_at_once = stepped(solver, noise, outputs, (3, 3, 3))
    assert torch.equal(all_at_once[:, 0], together[:, 0])
    assert not torch.equal(all_at_once[:, 2], together[:, 2])


def test_a_batch_forgets_image_by_image(solver):
    large, tiny = (Plan((Stroke(model),)) for model in "LS")
    part = Plan((Stroke("S"), Stroke("L", Region(0.25, tokens=tuple(range(0, 64, 4))))))
    plans = ((large,) * 3 + (part,) * 2 + (tiny,) * 3, (large,) * 5 + (tiny,) * 2 + (large,), (large,) * 8)
    pipe = stitched(Replay(plans), scheduler=solver())
    twin, forgotten = copy.deepcopy(pipe), []
    told = pipe.transformer.forgets
    pipe.transformer.forgets = lambda: forgotten.append(told()) or forgotten[-1]
    drawn = generate(pipe, images=3)
    assert forgotten == [(), (), (), (0,), (), (0, 1), (), ()]
    assert torch.equal(generate(pipe, images=3), drawn)
    assert torch.equal(generate(twin, images=3), drawn)


def test_policies_drawn_together_forget_as_the_pipeline_does(solver):
    pipe = stitched(scheduler=solver())
    texts = {**prompt(), "height": 32, "width": 32}
    policies = {name: Schedule(name) for name in ("L*", "L4 S*", "L3 H2@0.3 S*", "S3 L*")}
    start = prepare(pipe, None, steps=8, guidance=4.0, seed=7, **texts)
    drawn = draw_together(pipe, start, policies)
    for name, policy in policies.items():
        pipe.transformer.policy = policy
        assert torch.equal(drawn[name].latent, generate(pipe))


def test_other_schedulers_step_as_they_do():
    pipe = stitched(f"L{SWITCH} S*")
    plain = generate(pipe)
    pipe.transformer.engine = Engine(history="keep")
    assert torch.equal(generate(pipe), plain)
