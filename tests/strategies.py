"""What the searches draw from: plans, every policy with every option, and distances of a run."""

from hypothesis import strategies as st

from hybridstitch.policies.methods import HybridStitch, LargeOnly, Schedule, SmallOnly, TStitch
from hybridstitch.policies.plan import EVERYWHERE, Plan, Region, Stroke, small
from hybridstitch.policies.reuse import Reuse
from hybridstitch.policies.skip import Skip
from hybridstitch.policies.srdiffusion import SRDiffusion

REGIONS = st.one_of(
    st.just(EVERYWHERE),
    st.builds(
        Region,
        st.floats(0.01, 1.0),
        frozen=st.booleans(),
        tokens=st.none() | st.sets(st.integers(0, 99)).map(lambda s: tuple(sorted(s))),
    ),
)
STROKES = st.one_of(
    st.just(small()),
    st.builds(
        Stroke,
        st.just("L"),
        REGIONS,
        text=st.sampled_from(["fresh", "cached"]),
        branches=st.sampled_from(["both", "cond"]),
        dense=st.booleans(),
    ),
)
PLANS = st.builds(Plan, st.lists(STROKES, max_size=3).map(tuple), st.integers(0, 5))

RATIO = st.floats(0.01, 1.0)
NUMBER = st.floats(1e-6, 1e6)
SEGMENTS = st.tuples(
    st.sampled_from(["L", "S", "-", "H", "R"]),
    st.one_of(st.just(""), st.integers(0, 50).map(str), st.integers(0, 100).map("{}%".format)),
    st.sampled_from([".3", "0.25", "1", "0.05"]),
).map(lambda s: s[0] + s[1] + (f"@{s[2]}" if s[0] in "HR" else ""))
PROGRAMS = st.lists(SEGMENTS, min_size=1, max_size=5).map(" ".join)
MASKED = {
    "update_mask": st.booleans(),
    "masked_compute": st.booleans(),
    "text": st.sampled_from(["fresh", "cached"]),
    "branches": st.sampled_from(["both", "cond"]),
    "carry": st.floats(0, 1),
    "follow": st.floats(0, 1),
    "signal": st.sampled_from(["denoised", "latent", "prediction"]),
    "reduction": st.sampled_from(["token", "norm", "elementwise"]),
}


@st.composite
def hybrids(draw):
    count = draw(st.integers(1, 4))
    masks = sorted(draw(st.sets(RATIO, min_size=count, max_size=count)), reverse=True)
    thresholds = sorted(draw(st.lists(NUMBER, min_size=count + 1, max_size=count + 1)), reverse=True)
    options = draw(st.fixed_dictionaries({**MASKED, "min_large": st.floats(0, 1), "patience": st.integers(1, 4)}))
    return HybridStitch(masks=tuple(masks), thresholds=tuple(thresholds), **options)


SRDIFFUSIONS = st.builds(
    SRDiffusion,
    threshold=NUMBER,
    criterion=st.sampled_from(["level", "drop"]),
    min_large=st.floats(0, 1),
    signal=MASKED["signal"],
    reduction=MASKED["reduction"],
)
WRAPPED = {  # every policy with every option
    LargeOnly: st.just(LargeOnly()),
    SmallOnly: st.just(SmallOnly()),
    Skip: st.builds(Skip, st.integers(1, 60), st.floats(1, 4)),
    TStitch: st.builds(TStitch, st.floats(0, 1)),
    SRDiffusion: SRDIFFUSIONS,
    HybridStitch: hybrids(),
    Schedule: st.builds(Schedule, PROGRAMS, **MASKED),
}


def reuses(of):
    """Reuse of any of some policies, as long as they measure the denoised estimate."""
    return st.builds(
        Reuse,
        st.one_of(*of).filter(lambda policy: policy.measured[0] == "denoised"),
        bound=NUMBER,
        most=st.integers(1, 5),
        first=st.integers(2, 6),
    )


BY_POLICY = {**WRAPPED, Reuse: reuses(WRAPPED.values())}
ANY = st.one_of(*BY_POLICY.values())
DISTANCES = st.lists(st.one_of(st.none(), st.floats(0, 2), st.sampled_from([0.0, 0.3, 0.5])), max_size=30)
PROGRAMS_THAT_FIT = st.sampled_from(["L2 H30%@0.3 -10% R10%@0.2 S*", "S* L20%", "L33% R@0.5 L*"])
FIT = {**WRAPPED, Schedule: st.builds(Schedule, PROGRAMS_THAT_FIT, **MASKED)}
FITTING = st.one_of(*FIT.values(), reuses(FIT.values()))  # 6 steps or more
