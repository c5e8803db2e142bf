"""SPEC §2-§4 and §8.4: distances, scores and masks of whole runs against the formulas, written again from the page."""

from math import floor

import pytest
import torch
from diffusers import StableDiffusion3InpaintPipeline
from hypothesis import given
from hypothesis import strategies as st

from hybridstitch import HybridStitch, Schedule, stitch
from hybridstitch.drawing.change import busiest, distance, scores
from hybridstitch.errors import RunError
from hybridstitch.families.layout import Layout
from hybridstitch.policies.plan import Region
from seen import SIZES, calm, pair, plain, watch
from small_models import KINDS, generate, small, vae

IMAGES, STEPS, GUIDANCE = 3, 8, 4.0
PROGRAM = "L3 H3@0.3 S2"
SQUARE = Layout((2, 3), (2, 2))


def tokens_of(values):
    """(C, H, W) → (N, C·p·p), token by token, row by row."""
    rows = [
        values[:, y : y + 2, x : x + 2].reshape(-1)
        for y in range(0, values.shape[1], 2)
        for x in range(0, values.shape[2], 2)
    ]
    return torch.stack(rows)


def by_hand(change, output, reduction, given=None):
    """Eq. 9 of one image, one token after the other."""
    kept = [n for n in range(len(tokens_of(change))) if given is None or not given[n]]
    c, d = tokens_of(change)[kept], tokens_of(output).abs()[kept]
    if reduction == "token":
        return torch.stack([a.sum() / b.sum() for a, b in zip(c, d, strict=True)]).mean()
    if reduction == "norm":
        return c.sum() / d.sum()
    return (c / d.clamp(min=1e-6)).mean()


def chosen(score, ratio):
    """The K tokens with the largest score, ties to the lower index."""
    count = min(max(floor(ratio * len(score) + 0.5), 1), len(score))
    return tuple(sorted(sorted(range(len(score)), key=lambda n: (-score[n].item(), n))[:count]))


def measured(pipe, calls, signal="denoised", last=None, guidance=GUIDANCE):
    """d_i of each step, (B, C, H, W) in float32, from what the transformer saw and returned.

    Guidance is the pipeline's, in its dtype: v_i is what the scheduler receives.
    """
    x = [call.x.float().chunk(len(call.x) // IMAGES)[-1] for call in calls]
    parts = [call.out.chunk(len(call.x) // IMAGES) for call in calls]
    v = [(p[0] if len(p) == 1 else p[0] + guidance * (p[1] - p[0])).float() for p in parts]
    if signal == "latent":
        return [*x[1:], last.float()]
    if signal == "prediction":
        return v
    return [a - sigma * b for a, b, sigma in zip(x, v, pipe.scheduler.sigmas, strict=False)]


def changes(outputs, first=None):
    """c_i, None where there is none."""
    before = [first, *outputs[:-1]]
    return [None if b is None else (a - b).abs() for a, b in zip(outputs, before, strict=True)]


@pytest.mark.parametrize("reduction", ["token", "norm", "elementwise"])
@pytest.mark.parametrize("signal", ["denoised", "latent", "prediction"])
@pytest.mark.parametrize("guidance", [GUIDANCE, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_distances_and_masks_are_those_of_the_formulas(size, guidance, signal, reduction):
    pipe = pair(Schedule(PROGRAM, signal=signal, reduction=reduction), "sd3.5-medium")
    calls, last = watch(pipe, images=IMAGES, size=size, guidance_scale=guidance)
    outputs = measured(pipe, calls, signal, last, guidance)
    moved = changes(outputs, calls[0].x[:IMAGES] if signal == "latent" else None)
    for image in range(IMAGES):
        for i, step in enumerate(pipe.transformer.trace.of(image)):
            if moved[i] is None:
                assert step.distance is None
                continue
            expected = by_hand(moved[i][image], outputs[i][image], reduction).item()
            assert step.distance == pytest.approx(expected, rel=2e-3 if reduction == "elementwise" else 1e-4)
            if step.mask:
                score = tokens_of(moved[i - 1][image]).mean(1)
                assert step.mask == chosen(score, 0.3)


@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_bf16_distances_and_masks_are_those_of_float32(kind, size):
    pipe = pair(HybridStitch(masks=(0.4, 0.2), thresholds=(0.51, 0.5, 0.4)), kind, torch.bfloat16)
    calls, _ = watch(pipe, images=IMAGES, size=size, steps=12)
    outputs = measured(pipe, calls)
    moved, same, count = changes(outputs), 0, 0
    for image in range(IMAGES):
        for i, step in enumerate(pipe.transformer.trace.of(image)[1:], 1):
            assert step.distance == pytest.approx(by_hand(moved[i][image], outputs[i][image], "token").item(), rel=1e-2)
            if step.mask:
                ratio = step.plan.strokes[-1].region.ratio
                same += len(set(step.mask) & set(chosen(tokens_of(moved[i - 1][image]).mean(1), ratio)))
                count += len(step.mask)
    assert count > 100
    assert same >= 0.98 * count


@pytest.mark.parametrize("reduction", ["token", "norm", "elementwise"])
@given(st.data())
def test_every_reduction_of_any_tensor(reduction, data):
    seed, rows, columns = (data.draw(st.integers(1, top)) for top in (10**6, 5, 5))
    generator = torch.Generator().manual_seed(seed)
    change, output = (torch.randn(2, 3, 2 * rows, 2 * columns, generator=generator) for _ in range(2))
    change = change.abs()
    given_ = torch.rand(2, rows * columns, generator=generator) < 0.3
    given_[:, 0] = False
    for left_out in (None, given_):
        values = distance(change, output, SQUARE, reduction, left_out)
        for image in range(2):
            alone = None if left_out is None else left_out[image]
            assert values[image].item() == pytest.approx(
                by_hand(change[image], output[image], reduction, alone).item(), rel=1e-4
            )
            score = scores(change, SQUARE, left_out)[image]
            expected = tokens_of(change[image]).mean(1)
            expected = expected if alone is None else torch.where(alone, 0.0, expected)
            torch.testing.assert_close(score, expected, rtol=1e-5, atol=0)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.floats(0.001, 1.0))
def test_ties_go_to_the_lower_index_and_k_is_rounded_half_up(values, ratio):
    score = torch.tensor(values, dtype=torch.float32)
    count = Region(ratio).count(len(values))
    assert tuple(busiest(score[None], count)[0].tolist()) == chosen(score, ratio)


def test_k_is_clamped():
    assert [Region(m).count(10) for m in (0.01, 0.05, 0.149, 0.15, 0.25, 0.949, 0.95, 1.0)] == [
        1,
        1,
        1,
        2,
        3,
        9,
        10,
        10,
    ]


def test_ties_in_a_run_go_to_the_lower_index():
    """A large model that points at zero everywhere moves no token, so that all scores are equal."""

    class Still(torch.nn.Module):
        def forward(self, module, args, out):
            return (out[0] * 0 + still[0],)

    pipe = plain()
    still = [torch.zeros(())]
    pipe.transformer.register_forward_hook(Still())
    stitch(pipe, calm(small()), "L3 H1@0.1 S1")
    generate(pipe, steps=5, latents=torch.ones(1, 4, 16, 16))
    assert pipe.transformer.trace.of(0)[3].mask == tuple(range(6))


def inpainting(policy):
    """An inpainting pipeline, its call and the tokens that the mask keeps."""
    wide = {"in_channels": 16, "out_channels": 16}
    pipe = plain(cls=StableDiffusion3InpaintPipeline, **wide)
    pipe.register_modules(vae=vae(latent_channels=16))
    stitch(pipe, calm(small("sd3", **wide)), policy)
    hole = torch.zeros(1, 1, 32, 32)
    hole[..., 8:24, 6:32] = 1.0
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    open_pixels = torch.nn.functional.interpolate(hole, size=(16, 16))[0]
    given_ = tokens_of(open_pixels).min(1).values < 1
    return pipe, {"image": image, "mask_image": hole, "strength": 1.0, "output_type": "latent"}, given_


@pytest.mark.parametrize("reduction", ["token", "norm"])
def test_tokens_given_by_inpainting_have_score_0_and_are_left_out_of_the_mean(reduction):
    pipe, call, given_ = inpainting(Schedule(PROGRAM, reduction=reduction))
    calls, _ = watch(pipe, **call)
    x = [c.x[:1] for c in calls]
    v = [c.out[:1] + GUIDANCE * (c.out[1:] - c.out[:1]) for c in calls]
    outputs = [a - sigma * b for a, b, sigma in zip(x, v, pipe.scheduler.sigmas, strict=False)]
    moved = changes(outputs)
    assert 0 < given_.sum() < 64
    for i, step in enumerate(pipe.transformer.trace.of(0)):
        left_out = given_ if i < STEPS - 1 else None  # after the last step there is no input to compare
        if i:
            expected = by_hand(moved[i][0], outputs[i][0], reduction, left_out).item()
            assert step.distance == pytest.approx(expected, rel=1e-4)
        if step.mask:
            score = tokens_of(moved[i - 1][0]).mean(1).masked_fill(given_, 0.0)
            assert step.mask == chosen(score, 0.3)
            assert not any(given_[list(step.mask)])


@pytest.mark.parametrize("signal", ["denoised", "latent"])
def test_tokens_overwritten_by_a_callback_are_given_also_in_place(signal):
    seen = []
    for in_place in (False, True):

        def overwrite(pipe, step, timestep, tensors, in_place=in_place):
            latents = tensors["latents"] if in_place else tensors["latents"].clone()
            latents[:, :, :4] = 5.0 + step  # the first two rows of tokens
            return {"latents": latents}

        pipe = pair(Schedule(PROGRAM, signal=signal))
        generate(pipe, callback_on_step_end=overwrite)
        steps = pipe.transformer.trace.of(0)
        seen.append([(step.mask, step.distance) for step in steps])
        masks = [step.mask for step in steps if step.mask]
        assert len(masks) == 3
        assert min(map(min, masks)) >= 16
    assert seen[0][:-1] == seen[1][:-1]  # after the last step nobody hears of the overwriting


def test_an_image_whose_tokens_are_all_given_has_no_distance_and_keeps_its_stage():
    def overwrite(pipe, step, timestep, tensors):
        return {"latents": tensors["latents"] + 1e-3}

    pipe = pair(HybridStitch(thresholds=(10.0, 10.0)))
    with pytest.warns(UserWarning, match="never left the large model"):
        generate(pipe, callback_on_step_end=overwrite)
    assert [step.distance for step in pipe.transformer.trace.of(0)][:-1] == [None] * 7


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("broken", ["large", "small"])
def test_a_value_that_is_no_number_names_its_step_and_models(value, broken):
    pipe = pair(PROGRAM)
    left = [5] if broken == "large" else [2]

    def spoil(module, args, out):
        left[0] -= 1
        return (torch.full_like(out[0], value),) if left[0] == 0 else None

    hook = getattr(pipe.transformer, broken).register_forward_hook(spoil)
    with pytest.raises(RunError, match=r"step 4 of image 0, drawn by S \+ L@0.3"):
        generate(pipe)
    hook.remove()
