"""Reports: what they show is what the trace holds."""

import re
from dataclasses import replace
from itertools import combinations, pairwise
from math import inf

import numpy as np
import pytest
from PIL import Image, ImageColor

from hybridstitch.policies.plan import Plan, Region, Stroke, large, small
from hybridstitch.policies.trace import Step, Trace
from hybridstitch.report.colours import BOTH, KINDS, LARGE, METHODS, SMALL, kind
from hybridstitch.report.filmstrip import filmstrip, spread
from hybridstitch.report.overlay import difference, side_by_side, who_drew
from hybridstitch.report.page import page, stages
from hybridstitch.report.takes import Exhibit, Take, decibels

HYBRID = Plan((small(), Stroke("L", Region(0.25))), 1)
PLANS = (Plan((large(),), 0), Plan((large(),), 0), HYBRID, HYBRID, Plan((small(),), 2))
MASK = (0, 1, 4, 5)  # of 4 × 4 tokens: the top left quarter


def trace(policy="hybrid-stitch:masks=0.25,thresholds=0.2/0.1", plans=PLANS, flags=()):
    records = tuple(
        Step(
            index=index,
            image=0,
            sigma=1 - index / len(plans),
            plan=plan,
            drawn=plan,
            distance=None if index == 0 else 0.5 / index**2,
            seconds=0.01,
            large_tokens=plan.large_tokens(16),
            mask=MASK if plan == HYBRID else None,
        )
        for index, plan in enumerate(plans)
    )
    return Trace(policy=policy, steps=len(plans), images=1, grid=(4, 4), records=records, flags=flags)


def exhibit(prompt="a big dog", *, beside=True, **of_trace):
    grey, lighter = Image.new("RGB", (32, 32), (100, 100, 100)), Image.new("RGB", (32, 32), (110, 110, 110))
    frames = tuple((step, grey) for step in (0, 2, 4))
    take = Take(image=grey, seconds=0.5, trace=trace(**of_trace), frames=frames)
    return Exhibit(
        prompt=prompt,
        seed=3,
        take=take,
        large=Take(image=lighter, seconds=1.0, trace=trace("large", (Plan((large(),)),) * 5)) if beside else None,
    )


def test_numbers_of_an_exhibit():
    assert exhibit().speedup == 2.0
    assert exhibit().psnr == pytest.approx(10 * np.log10(255**2 / 100))
    assert exhibit(beside=False).speedup is None
    same = exhibit()
    assert replace(same, large=same.take).psnr == inf
    assert [decibels(value) for value in (None, inf, 27.33)] == ["-", "identical", "27.3 dB"]


def test_kinds_of_steps():
    refresh = Plan((Stroke("L", Region(0.3)),))
    assert [kind(plan) for plan in (*PLANS[1:3], PLANS[4], refresh, Plan(()))] == ["L", "S+L", "S", "S+L", "-"]


def test_who_drew_where():
    tinted = np.asarray(who_drew(Image.new("RGB", (32, 32), (128, 128, 128)), trace().records[2], (4, 4), side=128))
    assert tinted.shape == (128, 128, 3)
    warm = np.asarray(ImageColor.getrgb(LARGE)) * 0.42 + 128 * 0.58
    cool = np.asarray(ImageColor.getrgb(SMALL)) * 0.42 + 128 * 0.58
    assert abs(tinted[20, 20] - warm).max() < 1.5
    assert abs(tinted[100, 100] - cool).max() < 1.5
    alone = np.asarray(who_drew(Image.new("RGB", (32, 32), (128, 128, 128)), trace().records[4], (4, 4)))
    assert abs(alone - cool).max() < 1.5


def test_differences_are_dark():
    shown = exhibit()
    assert np.asarray(difference(shown.take.image, shown.large.image)).max() == 255 - 4 * 10
    assert np.asarray(difference(shown.take.image, shown.take.image)).min() == 255


def test_the_sheets_are_written(tmp_path):
    filmstrip(exhibit(), tmp_path / "strip.png")
    filmstrip(exhibit(beside=False, policy="schedule:program=L2 H2@0.25 S"), tmp_path / "program.png")
    assert Image.open(tmp_path / "strip.png").width == Image.open(tmp_path / "program.png").width == 1560
    assert side_by_side(exhibit()).width > 2 * 384


def test_stages_are_the_stretches_of_the_trace():
    found = stages(trace())
    assert [(stage.drew, stage.first, stage.last, stage.share) for stage in found] == [
        ("L", 0, 1, 1.0),
        ("S + L@0.25", 2, 3, 0.25),
        ("S", 4, 4, 0.0),
    ]
    assert [stage.colour for stage in found] == [LARGE, BOTH, SMALL]


def test_the_page_holds_everything_itself(tmp_path):
    shown = [exhibit("a <b>big</b> dog & co", flags=("never left the large model",)), exhibit("a cat", beside=False)]
    page(shown, tmp_path / "index.html", command="hybridstitch generate 'a <b>'", versions="torch 2")
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt;big&lt;/b&gt; dog &amp; co" in text
    assert "<b>big" not in text
    assert "never left the large model" in text
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(sources) == 8  # each a slider of two and a strip; the first a difference and a mask too
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"@import|url\(|<link|<script src|https?:", text)


# Viénot, Brettel and Mollon 1999: linear RGB as seen without red or green cones.
VISIONS = {
    "all": np.eye(3),
    "protan": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "deutan": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
}


def lab(colour, vision):
    """CIE L*a*b* of a colour as that vision sees it."""
    rgb = np.array(ImageColor.getrgb(colour)) / 255
    linear = VISIONS[vision] @ np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("colours", [KINDS, METHODS], ids=["kinds", "methods"])
def test_colours_are_told_apart_with_any_vision(vision, colours):
    near = {
        (a, b): round(float(np.linalg.norm(lab(colours[a], vision) - lab(colours[b], vision))))
        for a, b in combinations(colours, 2)
    }
    assert {pair: apart for pair, apart in near.items() if apart < 20} == {}


def test_one_colour_a_method():
    assert (METHODS["large"], METHODS["small"], METHODS["hybrid-stitch"]) == (LARGE, SMALL, BOTH)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0.0, 50.0], [0.0, 50.0]),
        ([10.0, 14.0], [7.0, 17.0]),
        ([10.0, 10.0, 10.0, 90.0], [0.0, 10.0, 20.0, 90.0]),
        ([0.0, 11.0, 12.0], [-7 / 3, 23 / 3, 53 / 3]),
        ([], []),
    ],
)
def test_labels_make_room_for_each_other(places, expected):
    found = spread(places, 10.0)
    assert all(above - below >= 10 - 1e-9 for below, above in pairwise(found))
    assert found == pytest.approx(expected)
