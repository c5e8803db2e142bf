"""Costs: Eq. 3-8 against numbers worked out by hand, operations, memory, and the fitted model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridstitch.policies.latency import (
    CostModel,
    Shape,
    break_even,
    large_cost,
    largest_useful_mask,
    saving,
    small_cost,
)
from hybridstitch.policies.methods import Schedule
from hybridstitch.policies.plan import Plan, Region, Stroke, large, small
from hybridstitch.policies.seen import Seen

GIB = 2**30
LARGE = {"width": 38 * 64, "layers": 38}  # Stable Diffusion 3.5 large
MEDIUM = {"width": 24 * 64, "layers": 24}  # Stable Diffusion 3 medium


def masked(ratio):
    return Stroke("L", Region(ratio))


# --- Eq. 3-8: 50 steps, large 0.4 s, small 0.1 s; large to 10, 30 % to 25, 10 % to 35, then small ---


def test_eq_3_the_large_model_s_time():
    """10·0.4·1 + 15·0.4·0.3 + 10·0.4·0.1 = 4 + 1.8 + 0.4."""
    assert large_cost((10, 25, 35), (0.3, 0.1), 0.4) == pytest.approx(6.2)


def test_eq_4_the_small_model_s_time():
    """0.1·(50 − 10)."""
    assert small_cost((10, 25, 35), 50, 0.1) == pytest.approx(4.0)


def test_eq_5_what_is_saved():
    """0.4·50 − 6.2 − 4."""
    assert saving((10, 25, 35), (0.3, 0.1), 50, large=0.4, small=0.1) == pytest.approx(9.8)


def test_eq_6_and_7_a_mask_saves_only_below_one_minus_the_ratio():
    """L_l·M + L_s < L_l, at L_s / L_l = 1/4: below 0.75."""
    limit = largest_useful_mask(0.25)
    assert limit == 0.75
    for mask, sign in ((0.74, 1), (0.76, -1)):
        assert saving((10, 50), (mask,), 50, large=0.4, small=0.1) * sign > saving(
            (50, 50), (mask,), 50, large=0.4, small=0.1
        )


def test_no_switch_saves_nothing():
    assert saving((50,), (), 50, large=0.4, small=0.1) == 0


@pytest.mark.parametrize(("switches", "masks"), [((10,), (0.3,)), ((10, 20, 30), (0.3,)), ((), ())])
def test_switches_and_masks_must_fit(switches, masks):
    with pytest.raises(
        ValueError, match=rf"{len(masks)} mask\(s\) need {len(masks) + 1} switches, {len(switches)} were"
    ):
        large_cost(switches, masks, 1.0)


@given(st.integers(2, 20), st.integers(0, 20), st.integers(0, 20), st.floats(0.01, 1), st.floats(0.01, 1))
def test_eq_3_to_5_are_the_cost_of_the_plans(first, hybrid, last, mask, ratio):
    """The closed form and the sum over the steps of a program agree, with masked steps in proportion."""
    steps = first + hybrid + last
    program = Schedule(f"L{first} H{hybrid}@{mask:.6f} S{last}")
    plans = [program.decide(Seen(step=i, steps=steps, stage=0, distances=())) for i in range(steps)]
    cost = CostModel(large=1.0, small=ratio).plans(plans)
    switches, masks = (first, first + hybrid), (float(f"{mask:.6f}"),)
    if masks[0] < 1:  # a mask of everything is a dense step
        assert cost == pytest.approx(large_cost(switches, masks, 1.0) + small_cost(switches, steps, ratio))
        assert steps - cost == pytest.approx(saving(switches, masks, steps, large=1.0, small=ratio), abs=1e-9)


# --- when it pays (SPEC §7), Stable Diffusion 3.5 large and 3 medium at 768² by operations ---


def test_break_even_of_stable_diffusion_3_at_30_percent():
    tokens = 48 * 48
    l = Shape(**LARGE, image_tokens=tokens, text_tokens=333)  # noqa: E741
    s = Shape(**MEDIUM, image_tokens=tokens, text_tokens=333).flops() / l.flops()
    fresh = l.flops(Region(0.3).count(tokens)) / l.flops()
    cached = l.flops(Region(0.3).count(tokens), text="cached") / l.flops()
    assert (s, fresh, cached) == pytest.approx((0.274, 0.388, 0.262), abs=5e-4)
    assert break_even(fresh, s) == pytest.approx(0.53, abs=0.006)
    assert break_even(cached, s) == pytest.approx(0.36, abs=0.006)
    assert break_even(cached / 2, s) == pytest.approx(0.18, abs=0.006)  # one branch of two


def test_a_small_model_as_dear_as_the_large_one_never_pays():
    assert break_even(0.3, 1.0) == float("inf")
    assert break_even(0.3, 0.25) == pytest.approx(0.4)


def test_operations_by_hand():
    """width 2, 3 layers, 5 image and 1 text token: 24·4·6 + 4·6·6·2 a layer; 8·4·5 + 4·5·5·2 a dual layer."""
    shape = Shape(width=2, layers=3, image_tokens=5, text_tokens=1, dual_layers=2)
    assert shape.flops() == 3 * (576 + 288) + 2 * (160 + 200)
    assert shape.flops(2) == 3 * (24 * 4 * 3 + 4 * 3 * 6 * 2) + 2 * (8 * 4 * 2 + 4 * 2 * 5 * 2)
    assert shape.flops(2, text="cached") == 3 * (24 * 4 * 2 + 4 * 2 * 6 * 2) + 2 * (8 * 4 * 2 + 4 * 2 * 5 * 2)


# --- memory ---


@pytest.mark.parametrize(
    ("pixels", "image_only", "with_text"), [(512, 0.71, 0.93), (768, 1.59, 1.82), (1024, 2.82, 3.05)]
)
def test_memory_of_keys_and_values(pixels, image_only, with_text):
    """Stable Diffusion 3.5 large, guidance, bf16; the 333 text tokens add 0.23 GiB at every size."""
    tokens = (pixels // 16) ** 2
    assert Shape(**LARGE, image_tokens=tokens, text_tokens=0).kv_bytes() / GIB == pytest.approx(image_only, abs=0.006)
    assert Shape(**LARGE, image_tokens=tokens, text_tokens=333).kv_bytes() / GIB == pytest.approx(with_text, abs=0.006)


def test_memory_grows_with_images_branches_and_element_size():
    shape = Shape(**LARGE, image_tokens=1024, text_tokens=77, dual_layers=13)
    assert shape.kv_bytes(images=3) == 3 * shape.kv_bytes()
    assert 2 * shape.kv_bytes(branches=1) == shape.kv_bytes()
    assert shape.kv_bytes(element_bytes=4) == 2 * shape.kv_bytes()
    without = Shape(**LARGE, image_tokens=1024, text_tokens=77)
    assert shape.kv_bytes() - without.kv_bytes() == 2 * 13 * 1024 * 38 * 64 * 2 * 2


# --- the fitted model ---


@given(st.floats(0.1, 10), st.floats(0.01, 1), st.floats(0, 1), st.floats(0.1, 5))
def test_a_fit_is_exact_on_strokes_that_follow_the_model(dense, light, base, slope):
    strokes = [(large(), dense), (small(), light), (large(), dense)]
    strokes += [(masked(m), base + slope * m) for m in (0.1, 0.2, 0.4, 0.4)]
    model = CostModel.fit(strokes)
    assert model.large == pytest.approx(dense)
    assert model.small == pytest.approx(light)
    for ratio in (0.05, 0.3, 0.9):
        assert model.masked(ratio) == pytest.approx(base + slope * ratio)
    assert model.plan(Plan((small(), masked(0.3)), 1)) == pytest.approx(light + base + slope * 0.3)


def test_one_mask_size_gives_a_line_through_the_origin():
    model = CostModel.fit([(large(), 1.0), (small(), 0.2), (masked(0.2), 0.3), (masked(0.2), 0.5)])
    assert model.masked(0.1) == pytest.approx(0.2)


def test_without_masked_strokes_eq_3_serves():
    assert CostModel.fit([(large(), 2.0), (small(), 0.2)]).masked(0.3) == pytest.approx(0.6)


def test_a_mask_computed_densely_costs_a_dense_step():
    model = CostModel(large=1.0, small=0.25, masked_base=0.1, masked_slope=1.0)
    assert model.plan(Plan((small(), Stroke("L", Region(0.3), dense=True)), 1)) == 1.25
    assert model.plan(Plan(())) == 0


@pytest.mark.parametrize("strokes", [[], [(large(), 1.0)], [(small(), 1.0)], [(masked(0.3), 1.0), (small(), 1.0)]])
def test_a_fit_needs_both_models(strokes):
    with pytest.raises(
        ValueError, match=r"dense large and \d small strokes were measured; at least one of each is needed"
    ):
        CostModel.fit(strokes)
