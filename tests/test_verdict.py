"""What a recipe says in words of a front."""

import pytest

from hybridstitch.calibrate.compare import Score
from hybridstitch.calibrate.table import Standing
from hybridstitch.calibrate.verdict import verdict
from hybridstitch.measure.price import Prices
from hybridstitch.policies.parse import parse
from hybridstitch.recipe import kind_of

PRICES = Prices(call=0.0, step=0.0, large=1.0, small=0.2, masked={"fresh": (0.1, 1.0), "cached": (0.1, 0.8)})
MASK = "schedule:text=cached,program=S L R@0.3 L"


def row(policy, steps, speed, *closeness):
    read = parse(policy)
    about = {"steps": steps, "policy": str(read), "psnr": 30.0, "seconds": 1.0, "distances": ()}
    scores = tuple(Score(prompt=prompt, closeness=c, **about) for prompt, c in enumerate(closeness))
    return Standing(read, steps, kind_of(read, steps, 50), speed, scores)


def sentences(*rows):
    return verdict(rows, rows, PRICES, {"0.3": 0.8}, speed=None, closeness=None)


def test_fewer_steps_are_one_stretch_whether_some_are_repeated_or_not():
    said = sentences(
        row("large", 50, 1.0, 1, 1, 1),
        row("skip:large-steps=30,early=1.0", 50, 1.6, 0.99, 0.99, 0.99),
        row("large", 20, 2.5, 0.98, 0.98, 0.98),
        row("large", 10, 5.0, 0.9, 0.9, 0.9),
        row(MASK, 4, 16.0, 0.8, 0.8, 0.8),
    )
    assert said[0].startswith(
        "At 1.60 to 5.00 times the large model's speed the large model with fewer steps, in some plans with "
        "predictions repeated, is closest (0.990 with skip"
    )
    assert said[1].startswith("At 16.00 times the large model's speed a region mask is closest (0.800 with S L R@0.3 L")
    both = sentences(row("large", 20, 2.5, 0.98, 0.98, 0.98), row("large", 10, 5.0, 0.9, 0.9, 0.9))
    assert "speed the large model with fewer steps is closest" in both[0]


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ((0.7, 0.71, 0.69), "ahead of the large model alone (0.700 with large in 5 steps, 10.00 times as fast): +0.1"),
        ((0.9, 0.91, 0.89), "behind the large model alone (0.900 with large in 5 steps, 10.00 times as fast): -0.1"),
        ((0.9, 0.7, 0.8), "level with the large model alone (0.800 with large in 5 steps, 10.00 times as fast): +0.0"),
    ],
)
def test_a_mask_is_ahead_behind_or_level(theirs, said):
    mask, large = row(MASK, 4, 10.1, 0.8, 0.81, 0.79), row("large", 5, 10.0, *theirs)
    found = verdict([mask], [mask, large], PRICES, {"0.3": 0.8}, speed=None, closeness=None)
    assert any(sentence.startswith(f"At 10.10 times it is {said}") for sentence in found)


@pytest.mark.parametrize(("closeness", "told"), [(0.993, True), (0.9915, False), (0.996, False)])
def test_where_the_large_model_alone_serves_it_says_by_how_much_both_are_ahead(closeness, told):
    alone = [row("skip:large-steps=20", 50, 2.5, *[0.995] * 3), row("skip:large-steps=15", 50, 3.6, *[0.989] * 3)]
    both = row(MASK, 4, 3.0, *[closeness] * 3)  # the two have .992 there
    found = verdict(alone, [*alone, both], PRICES, {"0.3": 0.8}, speed=None, closeness=None)
    said = (
        "about as close there: 0.993 with S L R@0.3 L (text=cached) in 4 steps, 3.00 times as fast, is ahead by 0.0010"
    )
    assert any(said in sentence for sentence in found) == told
    assert (" serves (0.995 with skip" in found[0]) == told


def test_beside_a_single_winner_it_says_what_is_as_close_too():
    alone = [row("skip:large-steps=20", 50, 2.5, *[0.995] * 3), row("skip:large-steps=15", 50, 3.6, *[0.989] * 3)]
    both = row(MASK, 4, 3.5, *[0.99] * 3)  # the two have .9895 there
    found = verdict(alone[1:], [*alone, both], PRICES, {"0.3": 0.8}, speed=None, closeness=None)
    assert any("3.50 times as fast, is ahead by 0.0005" in sentence for sentence in found)
