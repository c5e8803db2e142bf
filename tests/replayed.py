"""Subset replay: any tokens drawn again are the whole drawing there, whatever the family."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridstitch.families.rows import Rows
from small_models import kept

ROWS = 4  # two images, two branches


def subsets(data, count):
    """Tokens of each row, and some rows."""
    k = data.draw(st.integers(1, count - 1))
    row = st.permutations(range(count)).map(lambda order: sorted(order[:k]))
    tokens = torch.tensor(data.draw(st.lists(row, min_size=ROWS, max_size=ROWS)))
    images = data.draw(st.lists(st.integers(0, 1), min_size=1, unique=True).map(sorted))
    return tokens, Rows(images=tuple(images), total=2, branches=2)


def check(family, call, compare):
    """Draw any tokens again and compare with the whole, memory included."""
    _, memory = kept(family, call)

    @settings(max_examples=10, deadline=None)
    @given(st.data())
    def replay(data):
        tokens, rows = subsets(data, family.keys(call))
        part = {name: value if name in family.facts.shared else rows.take(value) for name, value in call.items()}
        mine = [(keys.clone(), values.clone()) for keys, values in memory]
        dense, _ = family.dense(part, memory=mine, rows=rows)
        before = [tensor.clone() for pair in mine for tensor in pair]
        drawn = family.masked(part, tokens[rows.numbers], mine, rows, text="fresh")
        inside = family.layout.inside(tokens[rows.numbers], dense)
        compare(torch.where(inside, drawn, 0), torch.where(inside, dense, 0))
        for one, other in zip((tensor for pair in mine for tensor in pair), before, strict=True):
            compare(one, other)

    replay()


def equal(one, other):
    """Bit for bit."""
    assert torch.equal(one, other)
