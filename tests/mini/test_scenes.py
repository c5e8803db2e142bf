"""Captions mean what the scene holds, splits keep apart, and the same scene draws the same picture."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from hybridstitch.mini.scenes import (
    SIDE,
    CaptionError,
    Scene,
    Split,
    UnknownWordError,
    heldout_prompts,
    pair_is_unseen,
    unknown_words,
)
from hybridstitch.mini.words import OBJECTS


@pytest.mark.parametrize("split", ["train", "heldout", "unseen_pairs"])
def test_a_caption_reads_back_as_its_scene(split: Split) -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        scene = Scene.sample(rng, split)
        assert scene.split == split
        assert Scene.parse(scene.caption(rng)) == Scene.parse(scene.caption()) == scene
        assert Scene.from_key(scene.key) == scene
        assert unknown_words(scene.caption(rng)) == []


def test_a_tenth_of_the_pairs_never_meet_in_training() -> None:
    unseen = {frozenset(pair) for pair in combinations(OBJECTS, 2) if pair_is_unseen(*pair)}
    assert 0.08 < len(unseen) / (len(OBJECTS) * (len(OBJECTS) - 1) / 2) < 0.12
    rng = np.random.default_rng(2)
    for _ in range(500):
        names = [thing.name for thing in Scene.sample(rng).things]
        assert not unseen & {frozenset(pair) for pair in combinations(names, 2)}
    seen = {name for name in OBJECTS if any(frozenset((name, other)) not in unseen for other in OBJECTS)}
    assert seen == set(OBJECTS)  # every object does occur in training


def test_an_unknown_word_is_named_with_its_neighbours() -> None:
    with pytest.raises(UnknownWordError, match=r"'doge'.*dog") as caught:
        Scene.parse("a big doge and a zzyzx on a meadow")
    assert [word for word, _ in caught.value.words] == ["doge", "zzyzx"]
    assert caught.value.words[1][1] == ()
    assert issubclass(UnknownWordError, ValueError)


@pytest.mark.parametrize("caption", ["", "a dog", "on a meadow", "a dog and a cat and a pig and a fox at night"])
def test_known_words_that_are_no_scene_are_refused(caption: str) -> None:
    with pytest.raises(CaptionError):
        Scene.parse(caption)


def test_a_thing_without_a_size_is_big() -> None:
    assert Scene.parse("a puppy next to a tiny kitten at dusk") == Scene.parse(
        "a big dog left of a small cat at sunset"
    )


def test_pictures_are_canonical_without_a_generator_and_jitter_with_one() -> None:
    scene = Scene.parse("a big dog above a small cat in the snow")
    first = np.asarray(scene.render())
    assert first.shape == (SIDE, SIDE, 3)
    assert (first == np.asarray(scene.render())).all()
    jittered = [np.asarray(scene.render(np.random.default_rng(seed))) for seed in (0, 0, 1)]
    assert (jittered[0] == jittered[1]).all()
    assert (jittered[0] != jittered[2]).any()


def test_every_object_looks_different() -> None:
    pictures = [np.asarray(Scene.parse(f"a {name} in the fog").render(), np.int16) for name in OBJECTS]
    for first, second in combinations(pictures, 2):
        assert np.abs(first - second).mean() > 2


def test_heldout_prompts_repeat_and_differ() -> None:
    prompts = heldout_prompts(50, seed=3)
    assert prompts == heldout_prompts(50, seed=3)
    assert len({Scene.parse(prompt).key for prompt in prompts}) == 50
    assert {Scene.parse(prompt).split for prompt in prompts} == {"heldout"}
    assert prompts != heldout_prompts(50, seed=4)


def test_the_world_needs_no_torch() -> None:
    code = "import sys, hybridstitch.mini.scenes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
