"""Every kind of Stable Diffusion 3 transformer serves as large and as small."""

from itertools import product

import pytest
import torch

from hybridstitch import stitch
from small_models import KINDS, generate, pipeline, small


@pytest.mark.parametrize(("large", "other"), list(product(KINDS, KINDS)))
def test_each_kind_is_large_to_each_kind(large, other):
    pipe = pipeline(large)
    plain = generate(pipe, steps=6)
    stitch(pipe, small(other), "large")
    assert torch.equal(generate(pipe, steps=6), plain)
    pipe.transformer.policy = "L3 H2@0.3 S1"
    hybrid = generate(pipe, steps=6)
    assert [str(step.drawn) for step in pipe.transformer.trace.records] == ["L"] * 3 + ["S + L@0.3"] * 2 + ["S"]
    pipe.transformer.policy = "L3 S3"
    stages = generate(pipe, steps=6)
    assert torch.isfinite(hybrid).all()
    assert not torch.equal(hybrid, stages)
