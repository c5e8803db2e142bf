"""The clean latent that a scheduler's step points at: Eq. 10, and what it is under other schedulers.

    flow matching        x − σ·v                        Euler's method, UniPC, DPM-Solver++
    a time a token       x + σ_n·u                      Euler's method in LTX's way, which hands over u = −v
    ε, v or x itself     what the solver works with     UniPC, DPM-Solver++
    ε, v or x itself     see `from_alpha`               DDIM

Always float32, of the latent's shape. A multistep solver keeps its last estimates: UniPC corrects the latent *after* it
took its estimate at the one the model saw, so Eq. 10 holds there too.
"""

from typing import Any

from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor


def measurable(scheduler: Any) -> bool:
    """Whether `estimate` can say: the scheduler adds no noise, and neither clips nor thresholds what it estimates."""
    config = scheduler.config
    if config.get("thresholding", False) or config.get("clip_sample", False):
        return False
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return not config.get("stochastic_sampling", False) and not config.get("invert_sigmas", False)
    if isinstance(scheduler, UniPCMultistepScheduler):
        return scheduler.predict_x0
    if isinstance(scheduler, DPMSolverMultistepScheduler):
        return config["algorithm_type"] == "dpmsolver++"
    return isinstance(scheduler, DDIMScheduler | CogVideoXDDIMScheduler)


def noise_level(scheduler: Any) -> Tensor | None:
    """σ of the step just made, or None where the scheduler's steps have none or cannot be measured."""
    if not measurable(scheduler) or not hasattr(scheduler, "sigmas"):
        return None
    return scheduler.sigmas[scheduler.step_index - 1]


def estimate(scheduler: Any, output: Tensor, sample: Tensor, timestep: Any, **step: Any) -> Tensor | None:
    """The clean latent that the step just made points at.

    Args:
        scheduler: it made the step.
        output: what it was given as the model's output, (B, …).
        sample: the latent the model saw, of the same shape.
        timestep: as it was given.
        step: further arguments of the step, by name.

    Returns:
        (B, …), float32; None where nobody can say.
    """
    if not measurable(scheduler):
        return None
    if isinstance(scheduler, DDIMScheduler | CogVideoXDDIMScheduler):
        return from_alpha(scheduler.alphas_cumprod[timestep], scheduler.config["prediction_type"], output, sample)
    times = step.get("per_token_timesteps")  # (B, N)
    if times is not None:
        return sample.float() + times[..., None] / scheduler.config["num_train_timesteps"] * output.float()
    if scheduler.config.get("prediction_type", "flow_prediction") == "flow_prediction":
        return sample.float() - scheduler.sigmas[scheduler.step_index - 1] * output.float()
    return scheduler.model_outputs[-1].float()


def from_alpha(alpha: Tensor, kind: str, output: Tensor, sample: Tensor) -> Tensor:
    """The clean latent in x = √ᾱ·x₀ + √(1 − ᾱ)·ε, where v = √ᾱ·ε − √(1 − ᾱ)·x₀.

    Args:
        alpha: ᾱ, a scalar.
        kind: of the output: "epsilon", "v_prediction" or "sample".
        output: (B, …).
        sample: x, (B, …).

    Returns:
        (B, …), float32.
    """
    output, sample = output.float(), sample.float()
    if kind == "sample":
        return output
    if kind == "v_prediction":
        return alpha**0.5 * sample - (1 - alpha) ** 0.5 * output
    return (sample - (1 - alpha) ** 0.5 * output) / alpha**0.5
