"""Keys and values: by reference on whole dense steps, copied for some rows, usable only one step later."""

import torch

from hybridstitch.kv import KVCache


def layers(rows, value, length=5, count=2):
    return [tuple(torch.full((rows, length, 3, 4), float(value)) for _ in range(2)) for _ in range(count)]


def test_a_dense_step_of_all_rows_is_kept_by_reference():
    cache, built = KVCache(4), layers(4, 1)
    cache.fill([0, 1, 2, 3], built, step=0)
    assert cache.layers is built
    assert cache.drawn == [0] * 4
    assert cache.bytes() == 2 * 2 * 4 * 5 * 3 * 4 * 4


def test_some_rows_are_copied_into_their_places():
    cache, built = KVCache(4), layers(4, 1)
    cache.fill([0, 1, 2, 3], built, step=0)
    cache.fill([1, 3], layers(2, 7), step=1)
    for pair in cache.layers:
        for tensor in pair:
            assert tensor[:, 0, 0, 0].tolist() == [1, 7, 1, 7]
    assert cache.drawn == [0, 1, 0, 1]


def test_some_rows_before_all_or_of_another_length_leave_the_others_undrawn():
    cache = KVCache(4)
    cache.fill([2], layers(1, 7), step=0)
    assert cache.drawn == [None, None, 0, None]
    assert cache.layers[0][0][:, 0, 0, 0].tolist() == [0, 0, 7, 0]
    cache.fill([1], layers(1, 8, length=6), step=1)
    assert cache.drawn == [None, 1, None, None]
    assert cache.layers[0][0].shape[1] == 6


def test_a_masked_step_continues_only_the_step_before_at_the_same_length():
    cache = KVCache(2)
    assert not cache.follows([0], 1, 5)
    cache.fill([0, 1], layers(2, 1), step=0)
    assert cache.follows([0, 1], 1, 5)
    assert not cache.follows([0, 1], 2, 5)
    assert not cache.follows([0, 1], 1, 6)
    cache.stamp([1], 1)
    assert cache.follows([1], 2, 5)
    assert not cache.follows([0, 1], 2, 5)


def test_what_no_masked_step_can_use_is_let_go():
    cache = KVCache(2)
    cache.fill([0, 1], layers(2, 1), step=3)
    cache.forget_before(3)
    assert cache.bytes() > 0
    cache.forget_before(4)
    assert cache.bytes() == 0
    assert cache.drawn == [None, None]
