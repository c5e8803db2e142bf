"""Programs: every program fills exactly T steps or is refused, in counts, shares and with `*`."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hybridstitch.errors import PolicyError
from hybridstitch.policies.methods import Schedule
from hybridstitch.policies.program import Segment, check_start, fill, segment_at, segments

STEPS = st.integers(1, 120)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_counts_fill_their_sum(counts):
    steps = sum(counts)
    assume(steps > 0)
    assert fill(" ".join(f"{'LS'[i % 2]}{n}" for i, n in enumerate(counts)), steps) == tuple(counts)


@st.composite
def shares(draw):
    """Whole percentages that add up to 100."""
    cuts = sorted(draw(st.lists(st.integers(0, 100), max_size=5)))
    return [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]


@given(shares(), STEPS)
def test_shares_of_a_hundred_fill_every_run(percents, steps):
    counts = fill(" ".join(f"L{p}%" for p in percents), steps)
    assert sum(counts) == steps
    assert min(counts) >= 0


@given(shares(), STEPS)
def test_shares_are_rounded_cumulatively(percents, steps):
    """Every boundary is rounded by itself, half a step up, however many segments come before it."""
    end = share = 0
    for count, percent in zip(fill(" ".join(f"L{p}%" for p in percents), steps), percents, strict=True):
        end, share = end + count, share + percent
        assert end == (share * steps + 50) // 100


@given(st.lists(st.one_of(st.integers(0, 20), st.integers(0, 30).map("{}%".format)), max_size=4), STEPS, st.data())
def test_the_star_takes_exactly_the_rest(given_, steps, data):
    place = data.draw(st.integers(0, len(given_)))
    words = [f"L{count}" for count in given_]
    program = " ".join([*words[:place], "S*", *words[place:]])
    whole = sum(c for c in given_ if isinstance(c, int))
    percent = sum(int(c[:-1]) for c in given_ if isinstance(c, str))
    rest = steps - whole - (percent * steps + 50) // 100
    if rest < 0:
        with pytest.raises(PolicyError, match=f"fills {steps - rest} steps, this run has {steps}"):
            fill(program, steps)
    else:
        counts = fill(program, steps)
        assert counts[place] == rest
        assert sum(counts) == steps
        assert min(counts) >= 0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any))
def test_every_step_lies_in_its_segment(counts):
    program, steps = " ".join(f"L{n}" for n in counts), sum(counts)
    places = [segment_at(program, step, steps)[0] for step in range(steps)]
    assert places == [i for i, n in enumerate(counts) for _ in range(n)]


@pytest.mark.parametrize(
    ("program", "steps", "counts"),
    [
        ("L10 H15@0.3 S25", 50, (10, 15, 25)),
        ("L20% H30%@0.3 S*", 50, (10, 15, 25)),
        ("L20% H30%@0.3 S*", 7, (1, 3, 3)),
        ("L S*", 4, (1, 3)),
        ("L L S", 3, (1, 1, 1)),
        ("S* L15%", 50, (42, 8)),
        ("L12.5% S*", 8, (1, 7)),
        ("L33% S33% L34%", 10, (3, 4, 3)),
        ("L8 S*", 8, (8, 0)),
        ("L29% S*", 50, (15, 35)),
    ],
)
def test_fill(program, steps, counts):
    assert fill(program, steps) == counts


def test_segments():
    assert segments("L H30%@.25 -2 S*") == (
        Segment("L", "1", None),
        Segment("H", "30%", 0.25),
        Segment("-", "2", None),
        Segment("S", "*", None),
    )


REFUSED = [
    ("", "the program is empty; write for example 'L10 H15@0.3 S25'"),
    ("X10", "'X10' in the program 'X10' is not a segment; write L10, S*, H30%@0.3, R5@0.3 or -2"),
    ("L10 Q", "'Q' in the program 'L10 Q' is not a segment"),
    ("L-3", "is not a segment"),
    ("H10", "'H10' in the program 'H10': H and R need a mask (H10@0.3), L, S and - have none"),
    ("L10@0.3", "H and R need a mask (H10@0.3), L, S and - have none"),
    ("L H2@30", "a mask of 30.0 was given; a mask is a share of the tokens above 0 and at most 1 (30 % is 0.3)"),
    ("L H2@0", "a mask of 0.0 was given"),
    ("L* S*", "the program 'L* S*' has more than one '*'; only one segment can take the rest"),
]


@pytest.mark.parametrize(("program", "says"), REFUSED)
def test_a_program_that_does_not_parse_is_refused(program, says):
    with pytest.raises(PolicyError) as caught:
        Schedule(program)
    assert says in str(caught.value)


UNFIT = [
    (
        "L10 S10",
        30,
        "the program 'L10 S10' fills 20 steps, this run has 30; change a count, or let one segment take the",
    ),
    ("L10 S30", 30, "fills 40 steps, this run has 30"),
    ("L10 S*", 8, "fills 10 steps, this run has 8"),
    ("L60% S60%", 10, "fills 12 steps, this run has 10"),
    ("R@0.3 S*", 8, "'R@0.3 S*' repeats a prediction at step 0, where there is none; begin with L or S"),
    ("- L*", 8, "repeats a prediction at step 0, where there is none; begin with L or S"),
    (
        "H@0.3 S*",
        8,
        "asks for a mask before step 2, but a mask needs the change between two steps; begin with at least 2",
    ),
    ("L H@0.3 S*", 8, "asks for a mask before step 2"),
    ("L10% R*@0.3", 10, "asks for a mask before step 2"),
]


@pytest.mark.parametrize(("program", "steps", "says"), UNFIT)
def test_a_program_that_does_not_fit_the_run_is_refused(program, steps, says):
    with pytest.raises(PolicyError) as caught:
        Schedule(program).check(steps)
    assert says in str(caught.value)


def test_a_literal_latent_signal_masks_one_step_earlier():
    Schedule("L H*@0.3", signal="latent").check(8)
    with pytest.raises(PolicyError, match="before step 1"):
        Schedule("H*@0.3", signal="latent").check(8)


def test_a_step_beyond_the_run_is_refused():
    with pytest.raises(PolicyError, match="step 4 lies beyond the 4 steps of 'L4'"):
        segment_at("L4", 4, 4)


def test_a_run_without_steps_starts_nowhere():
    check_start("L*", 0, unmasked=2)
