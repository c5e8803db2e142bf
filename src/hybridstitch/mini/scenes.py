"""The miniature world: 128x128 pictures of one to three objects on a soft gradient, and captions that say
exactly that.

A `Scene` is the meaning; `caption` words it, `parse` reads it back, `render` draws it. Every scene
belongs to one split, by a hash of its meaning: "unseen_pairs" if it holds an object pair kept out of
training (a tenth of all pairs), else "heldout" for one scene in twenty, else "train". Positions and
lengths are in pixels.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Literal, get_args

import numpy as np
from PIL import Image

from .sprites import sprite
from .words import BACKGROUNDS, OBJECTS, RELATIONS, ROW_FORMS, SIZES, meanings, vocabulary

Split = Literal["train", "heldout", "unseen_pairs"]
Layout = Literal["alone", "left", "above", "row"]

SIDE = 128  # pixels
PIXELS = {"alone": (60, 38), "left": (58, 38), "above": (58, 38), "row": (40, 30)}  # of a (big, small) object
CENTRES: dict[str, tuple[tuple[int, int], ...]] = {  # (x, y) of each object
    "alone": ((64, 64),),
    "left": ((33, 64), (95, 64)),
    "above": ((64, 33), (64, 95)),
    "row": ((23, 64), (64, 64), (105, 64)),
}
JITTER = 3  # pixels, each way
COUNTS = (0.3, 0.5, 0.2)  # share of scenes with one, two and three objects


class CaptionError(ValueError):
    """The words are known, but they do not describe a scene."""


class UnknownWordError(CaptionError):
    """A caption holds words outside the world; `.words` lists (word, nearest known words)."""

    def __init__(self, words: list[tuple[str, tuple[str, ...]]]) -> None:
        self.words = words
        parts = [f"{word!r}" + (f" (near: {', '.join(near)})" if near else "") for word, near in words]
        super().__init__(f"the miniature world does not know {'; '.join(parts)}")


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a scene: a key of `OBJECTS` and a key of `SIZES`."""

    name: str
    size: str = "big"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows. Objects are listed left to right, or top to bottom."""

    things: tuple[Thing, ...]
    layout: Layout
    background: str

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout) or len(self.things) != len(CENTRES[self.layout]):
            raise CaptionError(f"a scene laid out {self.layout!r} cannot hold {len(self.things)} objects")
        if self.background not in BACKGROUNDS:
            raise CaptionError(f"no background {self.background!r}; there are {', '.join(BACKGROUNDS)}")
        for thing in self.things:
            if thing.name not in OBJECTS or thing.size not in SIZES:
                raise CaptionError(f"no object {thing.size} {thing.name}")

    @property
    def key(self) -> str:
        """The meaning in one line; equal for equal scenes only."""
        things = "+".join(f"{thing.size}:{thing.name}" for thing in self.things)
        return f"{self.layout}|{things}|{self.background}"

    @classmethod
    def from_key(cls, key: str) -> Scene:
        """The scene whose `key` this is."""
        layout, things, background = key.split("|")
        pairs = (thing.split(":") for thing in things.split("+"))
        return cls(tuple(Thing(name, size) for size, name in pairs), layout, background)  # pyright: ignore

    @property
    def split(self) -> Split:
        """Which split this scene belongs to."""
        names = [thing.name for thing in self.things]
        if any(pair_is_unseen(first, second) for first, second in combinations(names, 2)):
            return "unseen_pairs"
        return "heldout" if _hash("scene " + self.key) % 20 == 0 else "train"

    @classmethod
    def sample(cls, rng: np.random.Generator, split: Split = "train") -> Scene:
        """A random scene of a split."""
        if split not in get_args(Split):
            raise ValueError(f"no split {split!r}; there are {', '.join(get_args(Split))}")
        while True:
            scene = cls._draw(rng)
            if scene.split == split:
                return scene

    @classmethod
    def _draw(cls, rng: np.random.Generator) -> Scene:
        count = int(rng.choice(3, p=COUNTS)) + 1
        names = rng.choice(list(OBJECTS), size=count, replace=False)
        sizes = ["big" if big else "small" for big in rng.random(count) < 0.6]
        layout: Layout = {1: "alone", 2: "left" if rng.random() < 0.5 else "above", 3: "row"}[count]  # pyright: ignore
        background = list(BACKGROUNDS)[int(rng.integers(len(BACKGROUNDS)))]
        return cls(tuple(Thing(str(name), size) for name, size in zip(names, sizes, strict=True)), layout, background)

    def altered(self, rng: np.random.Generator) -> Scene:
        """Another scene that differs in one respect: an object, a size, the order, the layout or the background."""
        while True:
            things, layout, background = list(self.things), self.layout, self.background
            which = int(rng.integers(len(things)))
            match int(rng.integers(5)):
                case 0:
                    things[which] = Thing(str(rng.choice(list(OBJECTS))), things[which].size)
                case 1:
                    things[which] = Thing(things[which].name, "small" if things[which].size == "big" else "big")
                case 2:
                    background = str(rng.choice(list(BACKGROUNDS)))
                case 3 if len(things) > 1:
                    first, second = rng.choice(len(things), 2, replace=False).tolist()
                    things[first], things[second] = things[second], things[first]
                case _ if len(things) == 2:
                    layout = "above" if layout == "left" else "left"
                case _:
                    continue
            other = Scene(tuple(things), layout, background)
            if other != self and len({thing.name for thing in things}) == len(things):
                return other

    def recast(self, rng: np.random.Generator, *places: int, among: Sequence[str] = tuple(OBJECTS)) -> Scene:
        """The same scene with objects it does not hold in these places, sizes kept."""
        own = {thing.name for thing in self.things}
        names = rng.choice([name for name in among if name not in own], size=len(places), replace=False)
        things = list(self.things)
        for place, name in zip(places, names, strict=True):
            things[place] = Thing(str(name), things[place].size)
        return Scene(tuple(things), self.layout, self.background)

    def caption(self, rng: np.random.Generator | None = None) -> str:
        """One wording of the scene; without `rng` the canonical one. At most 22 words (24 tokens with both ends)."""
        things = [_thing_words(thing, rng) for thing in self.things]
        where = _pick(BACKGROUNDS[self.background][0], rng)
        if self.layout == "alone":
            return f"{things[0]} {where}"
        if self.layout == "row":
            return f"{_pick(ROW_FORMS, rng).format(*things)} {where}"
        return f"{things[0]} {_pick(RELATIONS[self.layout], rng)} {things[1]} {where}"

    @classmethod
    def parse(cls, caption: str) -> Scene:
        """The scene a caption describes. Raises `UnknownWordError` or `CaptionError`."""
        if strange := unknown_words(caption):
            raise UnknownWordError(strange)
        text = " " + " ".join(_words(caption)) + " "
        background = next((name for name, phrase in _phrases() if text.endswith(f" {phrase} ")), None)
        if background is None:
            raise CaptionError(f"{caption!r} does not end with a background, such as 'on a meadow' or 'at night'")
        things = tuple(_things(text.split()))
        above = any(f" {phrase} " in text for phrase in RELATIONS["above"])
        if not 1 <= len(things) <= 3:
            raise CaptionError(f"{caption!r} names {len(things)} objects; a scene holds 1 to 3")
        layout: Layout = {1: "alone", 2: "above" if above else "left", 3: "row"}[len(things)]  # pyright: ignore
        return cls(things, layout, background)

    def boxes(self, rng: np.random.Generator | None = None) -> tuple[tuple[int, int, int], ...]:
        """(left, top, pixels) of each object, jittered if `rng` is given."""
        boxes = []
        for thing, (x, y) in zip(self.things, CENTRES[self.layout], strict=True):
            pixels = PIXELS[self.layout][thing.size != "big"]
            dx, dy = (0, 0) if rng is None else rng.integers(-JITTER, JITTER + 1, size=2).tolist()
            left, top = (min(max(c - pixels // 2, 0), SIDE - pixels) for c in (x + dx, y + dy))
            boxes.append((left, top, pixels))
        return tuple(boxes)

    def render(self, rng: np.random.Generator | None = None) -> Image.Image:
        """The 128x128 RGB picture; with `rng` the positions and the light vary a little."""
        _, top, bottom = BACKGROUNDS[self.background]
        light = 0.0 if rng is None else float(rng.uniform(-8, 8))
        ramp = np.linspace(0, 1, SIDE)[:, None, None]  # (SIDE, 1, 1)
        field = np.array(top) * (1 - ramp) + np.array(bottom) * ramp + light
        pixels = np.broadcast_to(np.clip(field, 0, 255), (SIDE, SIDE, 3))
        image = Image.fromarray(np.ascontiguousarray(pixels).astype(np.uint8))
        for thing, (left, upper, side) in zip(self.things, self.boxes(rng), strict=True):
            glyph = sprite(thing.name, side)
            image.paste(glyph, (left, upper), glyph)
        return image


def pair_is_unseen(first: str, second: str) -> bool:
    """Whether this pair of objects never meets in a training scene."""
    return _hash("pair " + " ".join(sorted((first, second)))) % 10 == 0


def unknown_words(prompt: str) -> list[tuple[str, tuple[str, ...]]]:
    """The words of a prompt outside the world, each with up to three near ones."""
    known = vocabulary()
    strange = dict.fromkeys(word for word in _words(prompt) if word not in known)
    return [(word, tuple(difflib.get_close_matches(word, known, n=3, cutoff=0.6))) for word in strange]


def heldout_prompts(n: int, seed: int = 0, split: Split = "heldout") -> list[str]:
    """`n` different captions of scenes never seen in training; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    prompts: dict[str, str] = {}
    while len(prompts) < n:
        scene = Scene.sample(rng, split)
        prompts.setdefault(scene.key, scene.caption(rng))
    return list(prompts.values())


@cache
def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|\d+|,|[^\w\s.!?]", text.lower())


def _pick(choices: tuple[str, ...], rng: np.random.Generator | None) -> str:
    return choices[0 if rng is None else int(rng.integers(len(choices)))]


def _thing_words(thing: Thing, rng: np.random.Generator | None) -> str:
    name = _pick((thing.name, *OBJECTS[thing.name][1]), rng)
    size = _pick((thing.size, *SIZES[thing.size]), rng)
    if rng is not None and thing.size == "big" and rng.random() < 0.25:
        size = ""  # an object without a size is big
    first = size or name
    return " ".join(word for word in ("an" if first[0] in "aeiou" else "a", size, name) if word)


@cache
def _phrases() -> tuple[tuple[str, str], ...]:
    return tuple((name, phrase) for name, (phrases, _, _) in BACKGROUNDS.items() for phrase in phrases)


def _things(words: list[str]) -> Iterator[Thing]:
    table, size = meanings(), "big"
    for word in words:
        kind, meaning = table.get(word, ("glue", ""))
        if kind == "size":
            size = meaning
        elif kind == "object":
            yield Thing(meaning, size)
            size = "big"
