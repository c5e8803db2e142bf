"""The words of the miniature world: objects, sizes, relations and backgrounds, each with its synonyms.

The first word of each entry is the canonical one (what a `Scene` stores); the others may stand for it in
a caption. Every word here becomes one token of the miniature tokenizer.
"""

from __future__ import annotations

OBJECTS: dict[str, tuple[str, tuple[str, ...]]] = {  # name: (glyph, synonyms)
    "dog": ("\U0001f436", ("puppy",)),
    "cat": ("\U0001f431", ("kitten",)),
    "lion": ("\U0001f981", ()),
    "panda": ("\U0001f43c", ()),
    "frog": ("\U0001f438", ("toad",)),
    "pig": ("\U0001f437", ("piglet",)),
    "chick": ("\U0001f424", ()),
    "penguin": ("\U0001f427", ()),
    "owl": ("\U0001f989", ()),
    "fox": ("\U0001f98a", ()),
    "bee": ("\U0001f41d", ("bumblebee",)),
    "butterfly": ("\U0001f98b", ()),
    "turtle": ("\U0001f422", ("tortoise",)),
    "octopus": ("\U0001f419", ()),
    "crab": ("\U0001f980", ()),
    "whale": ("\U0001f433", ()),
    "snail": ("\U0001f40c", ()),
    "ladybug": ("\U0001f41e", ("beetle",)),
    "fish": ("\U0001f420", ()),
    "unicorn": ("\U0001f984", ()),
    "apple": ("\U0001f34e", ()),
    "banana": ("\U0001f34c", ()),
    "lemon": ("\U0001f34b", ()),
    "grape": ("\U0001f347", ()),
    "strawberry": ("\U0001f353", ()),
    "watermelon": ("\U0001f349", ("melon",)),
    "carrot": ("\U0001f955", ()),
    "corn": ("\U0001f33d", ("maize",)),
    "mushroom": ("\U0001f344", ("toadstool",)),
    "pizza": ("\U0001f355", ()),
    "burger": ("\U0001f354", ("hamburger",)),
    "donut": ("\U0001f369", ("doughnut",)),
    "cupcake": ("\U0001f9c1", ("muffin",)),
    "cookie": ("\U0001f36a", ("biscuit",)),
    "avocado": ("\U0001f951", ()),
    "cheese": ("\U0001f9c0", ()),
    "car": ("\U0001f697", ("automobile",)),
    "bus": ("\U0001f68c", ()),
    "rocket": ("\U0001f680", ("spaceship",)),
    "boat": ("\u26f5", ("sailboat",)),
    "bicycle": ("\U0001f6b2", ("bike",)),
    "balloon": ("\U0001f388", ()),
    "gift": ("\U0001f381", ("present",)),
    "football": ("\u26bd", ()),
    "basketball": ("\U0001f3c0", ()),
    "guitar": ("\U0001f3b8", ()),
    "drum": ("\U0001f941", ()),
    "umbrella": ("\u2614", ()),
    "clock": ("\u23f0", ("alarm",)),
    "robot": ("\U0001f916", ()),
    "ghost": ("\U0001f47b", ()),
    "alien": ("\U0001f47d", ()),
    "pumpkin": ("\U0001f383", ()),
    "crown": ("\U0001f451", ()),
    "heart": ("\u2764", ()),
    "star": ("\u2b50", ()),
    "tree": ("\U0001f333", ("oak",)),
    "cactus": ("\U0001f335", ()),
    "sunflower": ("\U0001f33b", ()),
    "house": ("\U0001f3e0", ("home",)),
}

SIZES: dict[str, tuple[str, ...]] = {"big": ("large", "huge"), "small": ("little", "tiny")}

RELATIONS: dict[str, tuple[str, ...]] = {  # between two objects; "row" joins three
    "left": ("left of", "to the left of", "next to", "and"),
    "above": ("above", "over", "on top of"),
}

Colour = tuple[int, int, int]
BACKGROUNDS: dict[str, tuple[tuple[str, ...], Colour, Colour]] = {  # name: (phrases, colour at the top, at the bottom)
    "meadow": (("on a meadow", "on the grass", "on a lawn"), (196, 232, 150), (98, 172, 78)),
    "sky": (("in the sky", "in the air"), (92, 164, 236), (206, 232, 250)),
    "sunset": (("at sunset", "at dusk"), (120, 72, 150), (252, 158, 84)),
    "night": (("at night", "in the dark"), (14, 16, 48), (54, 58, 116)),
    "ocean": (("in the ocean", "in the sea", "under water"), (64, 196, 206), (8, 74, 136)),
    "desert": (("in the desert", "on the sand"), (250, 226, 164), (218, 170, 96)),
    "snow": (("in the snow", "on the ice"), (222, 234, 246), (250, 252, 255)),
    "forest": (("in the forest", "in the woods"), (52, 104, 66), (20, 52, 36)),
    "blossom": (("among blossoms", "in a pink room"), (255, 206, 222), (240, 140, 178)),
    "fog": (("in the fog", "in the mist"), (150, 156, 162), (206, 210, 212)),
}

GLUE = ("a", "an", "the", ",", "row", "with")  # words that only hold a caption together
ROW_FORMS = ("{0} , {1} and {2}", "{0} , {1} and {2} in a row", "a row of {0} , {1} and {2}")


def meanings() -> dict[str, tuple[str, str]]:
    """Each content word -> (kind, canonical word), kind one of "object", "size"."""
    table: dict[str, tuple[str, str]] = {}
    for name, (_, synonyms) in OBJECTS.items():
        table |= dict.fromkeys((name, *synonyms), ("object", name))
    for name, synonyms in SIZES.items():
        table |= dict.fromkeys((name, *synonyms), ("size", name))
    return table


def vocabulary() -> tuple[str, ...]:
    """Every word a caption can hold, sorted."""
    words = set(GLUE) | set(meanings())
    for phrases in RELATIONS.values():
        words |= {word for phrase in phrases for word in phrase.split()}
    for phrases, _, _ in BACKGROUNDS.values():
        words |= {word for phrase in phrases for word in phrase.split()}
    for form in ROW_FORMS:
        words |= {word for word in form.split() if not word.startswith("{")}
    return tuple(sorted(words))
