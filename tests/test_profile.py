"""Strokes are timed by themselves: each in every round, whatever the pipeline does in between."""

import pytest
import torch

from hybridstitch import stitch, unstitch
from hybridstitch.families.sd3 import SD3Family
from hybridstitch.measure.profile import StrokeTimer, costs, stroke_seconds
from hybridstitch.policies.plan import Region, Stroke
from small_models import POOLED, TEXT, TEXT_WIDTH, generate, stitched

STROKES = (Stroke("L"), Stroke("S"), Stroke("L", Region(0.25)), Stroke("L", Region(0.25), text="cached"))


@pytest.fixture
def pipe():
    return stitched()


@pytest.fixture
def inputs():
    """Of one call with guidance: 64 image tokens."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "hidden_states": (4, 16, 16),
        "encoder_hidden_states": (TEXT, TEXT_WIDTH),
        "pooled_projections": (POOLED,),
    }
    tensors = {name: torch.randn(2, *shape, generator=generator) for name, shape in shapes.items()}
    return {**tensors, "timestep": torch.full((2,), 500.0)}


def test_every_stroke_is_timed_in_every_round_whole_ones_behind_one_of_their_kind(pipe, inputs, monkeypatch):
    timer, drawn = StrokeTimer(pipe, inputs, STROKES), []
    dense, masked = SD3Family.dense, SD3Family.masked

    def spied_dense(family, *args, **options):
        drawn.append("L")
        return dense(family, *args, **options)

    def spied_masked(family, given, tokens, *args, text):
        drawn.append((tokens.shape[1], text))
        return masked(family, given, tokens, *args, text=text)

    monkeypatch.setattr(SD3Family, "dense", spied_dense)
    monkeypatch.setattr(SD3Family, "masked", spied_masked)
    pipe.transformer.small.register_forward_hook(lambda *_: drawn.append("S"))
    seconds = timer.round()
    assert tuple(seconds) == STROKES
    assert min(seconds.values()) > 0
    assert drawn == ["L", "L", "S", "S", (16, "fresh"), (16, "cached")]


def test_timing_goes_on_when_the_pipeline_drew_and_was_stitched_anew(pipe, inputs):
    timer = StrokeTimer(pipe, inputs, STROKES)
    generate(pipe, steps=2)
    model = pipe.transformer.small
    unstitch(pipe)
    stitch(pipe, model)
    assert tuple(timer.round()) == STROKES


def test_medians_of_rounds_become_a_cost_model(pipe, inputs):
    assert {len(times) for times in stroke_seconds(pipe, inputs, STROKES, repeats=3).values()} == {3}
    model = costs(pipe, inputs, ratios=(0.25, 0.5), repeats=3)
    assert model.large > 0
    assert model.small > 0
    assert model.masked(0.5) > 0
