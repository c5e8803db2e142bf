"""What the drop-in tests share: policies, calls and comparisons.

Under the policy "large" a stitched pipeline equals the plain one bit for bit; `same` checks it. Under a hybrid policy
each test checks what its feature promises.
"""

import torch

from hybridstitch import HybridStitch, Replay
from small_models import generate, pipeline, prompt, stitched

HYBRID = "L3 H3@0.3 S2"
DRAWN = ["L"] * 3 + ["S + L@0.3"] * 3 + ["S"] * 2
ADAPTIVE = HybridStitch(thresholds=(0.95, 0.75))
NO_EMBEDDINGS = {**dict.fromkeys(prompt()), "max_sequence_length": 2}


def drawn(pipe):
    """What the last run drew, step by step."""
    return [str(step.drawn) for step in pipe.transformer.trace.records]


def quiet(pipe):
    """The pipeline, without its progress bar."""
    pipe.set_progress_bar_config(disable=True)
    return pipe


def same(**call):
    """A call's latents, with and without stitching: equal bit for bit."""
    expected = generate(pipeline(), **call)
    pipe = stitched()
    assert torch.equal(generate(pipe, **call), expected)
    assert {str(step.drawn) for step in pipe.transformer.trace.records} == {"L"}
    return expected


def check_as_if_alone(together, pipe, trace, image, **call):
    """One image of a batch, against a run of its own with the same plans and masks. In float64: these random models
    amplify the rounding that a batch's other order of sums brings."""
    pipe.transformer.policy = Replay((trace.plans(masks=True)[image],))
    alone = generate(pipe, **call)
    assert alone.dtype == torch.float64
    torch.testing.assert_close(together[image, None], alone, rtol=0, atol=1e-6 * alone.abs().max().item())


def after_each_step(pipe, **call):
    """The latents (T, B, C, H, W) after each step."""
    seen = []

    def keep(pipe, step, timestep, tensors):
        seen.append(tensors["latents"].clone())
        return {}

    generate(pipe, callback_on_step_end=keep, **call)
    return torch.stack(seen)


def noise(images):
    return torch.randn(images, 4, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def tokens_of(where):
    """Which 2×2 patches of (C, H, W), bool, hold a True: token indices."""
    patches = where.any(0).unfold(0, 2, 2).unfold(1, 2, 2).flatten(2).any(-1)
    return tuple(patches.flatten().nonzero()[:, 0].tolist())
