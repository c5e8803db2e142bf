"""The clean latent of a step: what each solver works with itself, to the last bit, and who decides from it."""

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from hybridstitch import HybridStitch, stitch
from hybridstitch.errors import SchedulerError
from hybridstitch.mini.opened import open_mini
from hybridstitch.pair.estimate import estimate, measurable
from hybridstitch.pair.observer import check_scheduler, unwatch, watch
from hybridstitch.policies.parse import parse
from small_models import generate, pipeline, small, stitched

STEPS = 8
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
KINDS = ("epsilon", "v_prediction", "sample")


def unipc(**config):
    return UniPCMultistepScheduler(**{**FLOW, **config})


def dpm(**config):
    return DPMSolverMultistepScheduler(**{**FLOW, **config})


class Steps(list):
    """Keeps what it is told."""

    __hash__ = object.__hash__

    def observe(self, step):
        self.append(step)

    def forgets(self):
        return ()


def steps_of(scheduler, then=lambda result: None, **options):
    """Run a scheduler over predictions that know nothing, watched: the steps, and what `then` made of each result."""
    torch.manual_seed(0)
    scheduler.set_timesteps(STEPS)
    latent, seen, found = torch.randn(2, 4, 6, 6), Steps(), []
    watch(scheduler, seen)
    for timestep in scheduler.timesteps:
        output = torch.randn(2, 4, 6, 6)
        result = scheduler.step(output, timestep, latent, **options)
        latent = result.prev_sample
        found.append(then(result))
    unwatch(scheduler, seen)
    assert len(seen) == STEPS
    return seen, found


@pytest.mark.parametrize("scheduler", [unipc(), unipc(solver_order=3), dpm(), dpm(solver_order=3)], ids=str)
def test_x_minus_sigma_v_is_what_the_solver_works_with(scheduler):
    seen, solver = steps_of(scheduler, lambda result: scheduler.model_outputs[-1].clone())
    for step, own, sigma in zip(seen, solver, scheduler.sigmas, strict=False):
        assert torch.equal(step.clean, own)
        assert torch.equal(step.clean, step.latent - sigma * step.prediction)
        assert step.sigma == sigma


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [unipc, dpm])
def test_other_predictions_are_what_the_solver_works_with(make, kind):
    scheduler = make(prediction_type=kind, use_flow_sigmas=False)
    seen, solver = steps_of(scheduler, lambda result: scheduler.model_outputs[-1].clone())
    assert all(torch.equal(step.clean, own) for step, own in zip(seen, solver, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cls", [DDIMScheduler, CogVideoXDDIMScheduler])
def test_ddim_says_the_same_itself(cls, kind):
    scheduler = cls(prediction_type=kind, clip_sample=False)
    seen, own = steps_of(scheduler, lambda result: result.pred_original_sample)
    assert all(torch.equal(step.clean, said) for step, said in zip(seen, own, strict=True))
    assert all(step.sigma is None for step in seen)


def test_euler_arrives_where_it_points():
    seen, results = steps_of(FlowMatchEulerDiscreteScheduler(shift=3.0), lambda result: result.prev_sample)
    torch.testing.assert_close(seen[-1].clean, results[-1])  # its last step goes all the way
    assert seen[-1].clean.dtype == torch.float32


def test_a_time_for_each_token():
    """As LTX with conditions: the negative velocity, and tokens that are given already at time 0."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(STEPS)
    clean, noise = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    times = scheduler.timesteps[2] * torch.tensor([0.0, 1.0, 1.0, 0.5, 1.0]).expand(2, 5)
    sigma = times[..., None] / 1000
    sample, velocity = (1 - sigma) * clean + sigma * noise, noise - clean
    seen = Steps()
    watch(scheduler, seen)
    scheduler.step(-velocity, scheduler.timesteps[2], sample, per_token_timesteps=times)
    torch.testing.assert_close(seen[0].clean, clean)


def test_float32_whatever_the_latents_are():
    scheduler = unipc()
    scheduler.set_timesteps(2)
    sample, output = (torch.randn(1, 4, 6, 6).bfloat16() for _ in range(2))
    scheduler.step(output, scheduler.timesteps[0], sample)
    clean = estimate(scheduler, output, sample, scheduler.timesteps[0])
    assert torch.equal(clean, sample.float() - scheduler.sigmas[0] * output.float())


UNKNOWN = {
    "stochastic Euler": FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
    "inverted Euler": FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    "stochastic DPM-Solver++": dpm(algorithm_type="sde-dpmsolver++"),
    "DPM-Solver": DPMSolverMultistepScheduler(algorithm_type="dpmsolver", final_sigmas_type="sigma_min"),
    "UniPC on noise": unipc(predict_x0=False, prediction_type="epsilon", use_flow_sigmas=False),
    "UniPC with thresholds": unipc(thresholding=True),
    "DDIM that clips": DDIMScheduler(clip_sample=True),
    "DDPM": DDPMScheduler(),
    "CogVideoX' own": CogVideoXDPMScheduler(clip_sample=False),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_where_nobody_can_say(name):
    assert not measurable(UNKNOWN[name])
    assert estimate(UNKNOWN[name], torch.ones(1), torch.ones(1), 0) is None
    with pytest.raises(SchedulerError, match="decides from the change between steps"):
        check_scheduler(UNKNOWN[name], HybridStitch())
    check_scheduler(UNKNOWN[name], parse("L2 S*"))


# --- a pair that decides from it ---


@pytest.mark.parametrize("make", [unipc, dpm])
@pytest.mark.parametrize("policy", [HybridStitch(masks=(0.3,), thresholds=(0.9, 0.4)), "L3 H3@0.3 S2"], ids=str)
def test_a_pair_draws_with_a_multistep_solver(make, policy):
    pipe = stitched(policy, scheduler=make())
    assert generate(pipe).isfinite().all()
    records = pipe.transformer.trace.records
    assert all(step.distance is not None for step in records[1:])
    assert any(step.mask for step in records)
    large = stitched("large", scheduler=make())
    assert torch.equal(generate(large), generate(pipeline(scheduler=make())))


def test_a_corrector_changes_latents_so_they_are_not_compared():
    policy = HybridStitch(signal="latent")
    check_scheduler(dpm(), policy)
    with pytest.raises(SchedulerError, match=r"signal=latent.*corrects afterwards; use signal=denoised"):
        stitch(pipeline(scheduler=unipc()), small(), policy)
    check_scheduler(unipc(), HybridStitch())


@pytest.mark.slow
@pytest.mark.parametrize("make", [unipc, dpm])
def test_thresholds_found_under_euler_switch_near_the_same_step(make):
    """The first switch; after it the solver's history mixes both models, and D falls more slowly."""
    pipe = open_mini("hybridstitch")  # whose thresholds were found under Euler
    pipe.set_progress_bar_config(disable=True)
    euler, switches = pipe.scheduler, []
    for scheduler in (euler, make(flow_shift=euler.config["shift"])):
        pipe.scheduler = scheduler
        generator = torch.Generator().manual_seed(1)
        call = {"num_inference_steps": 50, "guidance_scale": 4.0, "generator": generator, "output_type": "latent"}
        pipe("a big dog on a meadow", **call)
        switches.append(pipe.transformer.trace.switches(0))
    assert [len(steps) for steps in switches] == [2, 2]
    assert abs(switches[0][0] - switches[1][0]) <= 1, switches
    assert abs(switches[0][1] - switches[1][1]) <= 10, switches
