"""cache-dit on the models of a stitched pipeline: it skips blocks of plain steps; masked steps never miss a block."""

import pytest
import torch

from seen import pair
from small_models import generate

cache_dit = pytest.importorskip("cache_dit")
STEPS = 12


def cached(model):
    """Skip blocks wherever two steps in three agree roughly; returns the number of blocks run, as it grows."""
    config = cache_dit.DBCacheConfig(
        num_inference_steps=STEPS, Fn_compute_blocks=1, residual_diff_threshold=5.0, max_warmup_steps=2,
        max_continuous_cached_steps=2,
    )  # fmt: skip
    blocks = model.transformer_blocks
    pattern = cache_dit.ForwardPattern.Pattern_1
    adapter = cache_dit.BlockAdapter(transformer=model, blocks=blocks, forward_pattern=pattern)
    cache_dit.enable_cache(adapter, cache_config=config)
    run = []
    for block in blocks:
        block.register_forward_hook(lambda *_: run.append(1))
    return run


@pytest.mark.parametrize("program", ["L12", "S*", "L4 S8"])
def test_plain_steps_skip_blocks_and_draw_nearly_the_same(program):
    pipe = pair(program)
    expected = generate(pipe, steps=STEPS)
    large, small = pipe.transformer.large, pipe.transformer.small
    run = {model: cached(model) for model in (large, small)}
    drawn = generate(pipe, steps=STEPS)
    assert [str(step.drawn) for step in pipe.transformer.trace.records] == (
        {"L12": ["L"] * 12, "S*": ["S"] * 12, "L4 S8": ["L"] * 4 + ["S"] * 8}[program]
    )
    for model, letter in ((large, "L"), (small, "S")):
        asked = sum(str(step.drawn) == letter for step in pipe.transformer.trace.records)
        if asked:
            assert 0 < len(run[model]) < asked * len(model.transformer_blocks)
    assert (drawn - expected).norm() < 0.5 * expected.norm()


def test_masked_steps_run_every_block_on_keys_and_values_of_a_whole_step():
    pipe = pair("L6 H3@0.3 S3")
    large = pipe.transformer.large
    run, family = cached(large), pipe.transformer.family
    counts = []
    for name in ("dense", "masked"):
        method = getattr(family, name)

        def counted(*args, _name=name, _method=method, **how):
            before = len(run)
            result = _method(*args, **how)
            counts.append((_name, len(run) - before))
            return result

        setattr(family, name, counted)
    drawn = generate(pipe, steps=STEPS)
    assert torch.isfinite(drawn).all()
    blocks = len(large.transformer_blocks)
    plain = [count for name, count in counts if name == "dense"][:6]
    assert min(plain) < blocks
    assert [count for name, count in counts if name == "masked"]
    assert all(count == blocks for name, count in counts if name == "masked")
    records = pipe.transformer.trace.records
    said = "no keys and values of the previous step: large model, dense"
    skipped_before = plain[-1] < blocks
    assert (records[6].fallback == said) == skipped_before
    assert counts[6] == ("dense" if skipped_before else "masked", blocks)
