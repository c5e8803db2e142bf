"""Keys and values: written in place, for all rows or some, usable only one step later."""

import pytest
import torch

from hybridstitch.drawing.kv import KVCache
from hybridstitch.families.rows import Rows
from hybridstitch.families.sd3 import SD3Family
from small_models import POOLED, TEXT, TEXT_WIDTH, kept, transformer

ROWS = 4


def layers(rows, value, length=5, count=2):
    return [tuple(torch.full((rows, length, 3, 4), float(value)) for _ in range(2)) for _ in range(count)]


def given(rows=ROWS):
    generator = torch.Generator().manual_seed(0)
    return {
        "hidden_states": torch.randn(rows, 4, 8, 8, generator=generator),
        "encoder_hidden_states": torch.randn(rows, TEXT, TEXT_WIDTH, generator=generator),
        "pooled_projections": torch.randn(rows, POOLED, generator=generator),
        "timestep": torch.linspace(900, 100, rows),
    }


@pytest.fixture
def family():
    family = SD3Family(transformer("sd3.5-medium"))
    family.attach()
    return family


def test_memory_held_is_undrawn():
    cache, built = KVCache(4), layers(4, 1)
    assert not cache.fits(5)
    cache.hold(built)
    assert cache.layers is built
    assert cache.drawn == [None] * 4
    assert cache.fits(5)
    assert not cache.fits(6)
    assert cache.bytes() == 2 * 2 * 4 * 5 * 3 * 4 * 4


def test_a_masked_step_continues_only_the_step_before_at_the_same_length():
    cache = KVCache(2)
    assert not cache.follows([0], 1, 5)
    cache.hold(layers(2, 1))
    assert not cache.follows([0], 1, 5)
    cache.stamp([0, 1], 0)
    assert cache.follows([0, 1], 1, 5)
    assert not cache.follows([0, 1], 2, 5)
    assert not cache.follows([0, 1], 1, 6)
    cache.stamp([1], 1)
    assert cache.follows([1], 2, 5)
    assert not cache.follows([0, 1], 2, 5)


def test_what_was_written_too_long_ago_is_stale_and_can_be_let_go():
    cache = KVCache(2)
    cache.hold(layers(2, 1))
    assert cache.stale(0)
    cache.stamp([0, 1], 3)
    assert not cache.stale(3)
    assert cache.stale(4)
    cache.stamp([1], 4)
    assert not cache.stale(4)
    cache.forget()
    assert cache.bytes() == 0
    assert cache.drawn == [None, None]


@torch.no_grad()
def test_a_dense_step_writes_into_the_memory_it_is_lent(family):
    inputs = given()
    memory = family.room(inputs)
    addresses = [tensor.data_ptr() for pair in memory for tensor in pair]
    prediction, filled = family.dense(inputs, memory=memory)
    assert filled
    assert torch.equal(prediction, family.dense(inputs)[0])
    assert [tensor.data_ptr() for pair in memory for tensor in pair] == addresses
    joint, image_only = {16 + TEXT}, {16}
    shapes = [tuple(keys.shape) for keys, _ in memory]
    assert {shape[1] for shape in shapes} == joint | image_only
    assert all(
        torch.equal(a, b)
        for mine, new in zip(memory, kept(family, inputs)[1], strict=True)
        for a, b in zip(mine, new, strict=True)
    )


@torch.no_grad()
def test_a_dense_step_of_some_rows_leaves_the_others_as_they_were(family):
    inputs, rows = given(), Rows(images=(1,), total=2, branches=2)
    assert rows.numbers == [1, 3]
    _, memory = kept(family, inputs)
    before = [(keys.clone(), values.clone()) for keys, values in memory]
    later = {name: rows.take(value) * 0.5 for name, value in inputs.items()}
    prediction, _ = family.dense(later, memory=memory, rows=rows)
    alone, fresh = kept(family, later)
    assert torch.equal(prediction, alone)
    for now, then, new in zip(memory, before, fresh, strict=True):
        for a, b, c in zip(now, then, new, strict=True):
            assert torch.equal(a[[0, 2]], b[[0, 2]])
            assert torch.equal(a[[1, 3]], c)


@torch.no_grad()
def test_memory_in_bfloat16_takes_half_and_draws_nearly_the_same(family):
    inputs, tokens = given(), torch.arange(3, 9).expand(ROWS, -1)
    full, half = family.room(inputs), family.room(inputs, torch.bfloat16)
    assert sum(k.nbytes + v.nbytes for k, v in half) * 2 == sum(k.nbytes + v.nbytes for k, v in full)
    exact, _ = family.dense(inputs, memory=full)
    rounded, _ = family.dense(inputs, memory=half)
    assert torch.equal(exact, rounded)  # only what is kept is rounded
    assert half[0][0].dtype == torch.bfloat16
    for rows in (None, Rows(images=(0,), total=2, branches=2)):
        some = slice(None) if rows is None else rows.numbers
        part = {name: value[some] for name, value in inputs.items()}
        a, b = (family.masked(part, tokens[some], memory, rows, text="fresh") for memory in (full, half))
        assert not torch.equal(a, b)
        assert ((a - b).abs().max() / a.abs().max()) < 0.05
