"""Traces: JSON out and in, replay without torch, the summary, and notes on thresholds that decide nothing."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridstitch.errors import TraceError
from hybridstitch.policies.methods import HybridStitch, LargeOnly, Schedule
from hybridstitch.policies.plan import Plan, Region, Stroke, large, small
from hybridstitch.policies.replay import Replay
from hybridstitch.policies.seen import Seen
from hybridstitch.policies.srdiffusion import SRDiffusion
from hybridstitch.policies.trace import Step, Trace
from strategies import ANY, DISTANCES, FITTING, PLANS

HYBRID = Plan((small(), Stroke("L", Region(0.25))), 1)


def step(index, image, plan, *, drawn=None, distance=None, mask=None, fallback=None, seconds=0.5):
    drawn = drawn or plan
    return Step(
        index=index,
        image=image,
        sigma=1 - index / 10,
        plan=plan,
        drawn=drawn,
        distance=distance,
        seconds=seconds,
        large_tokens=drawn.large_tokens(16),
        mask=mask,
        fallback=fallback,
    )


def simulated(policy, distances, steps, images=1):
    """The trace of a run whose step i of image n came out with distance i of list n."""
    stages, records = [0] * images, []
    before = [()] * images
    padded = [[*distances[n % len(distances)], *[None] * steps][:steps] for n in range(images)]
    for index in range(steps):
        for image in range(images):
            seen = Seen(
                step=index,
                steps=steps,
                stage=stages[image],
                distances=tuple(padded[image][:index]),
                image=image,
                plans=before[image],
            )
            plan = policy.decide(seen)
            stages[image] = plan.stage
            before[image] += (plan,)
            records.append(step(index, image, plan, distance=padded[image][index]))
    return Trace(policy=str(policy), steps=steps, images=images, grid=(4, 4), records=tuple(records))


# --- replay ---


@given(FITTING, st.lists(DISTANCES, min_size=1, max_size=3), st.integers(6, 30))
def test_a_replay_is_the_run(policy, distances, steps):
    """Also after the trace went through JSON."""
    policy.check(steps)
    trace = simulated(policy, distances, steps, images=len(distances))
    for read in (trace, Trace.from_json(json.loads(json.dumps(trace.to_json())))):
        replayed = read.replay(policy)
        assert replayed == tuple(tuple(s.plan for s in trace.of(n)) for n in range(trace.images))
    again = Replay(trace.plans())
    again.check(steps)
    assert trace.replay(again) == replayed


def test_a_replay_needs_no_torch(tmp_path):
    trace = simulated(HybridStitch(), [[None, 0.4, 0.2, 0.1]], 5)
    trace.save(tmp_path / "trace.json")
    code = (
        "import sys; from hybridstitch.policies.trace import Trace; from hybridstitch.policies.parse import parse; "
        f"t = Trace.load({str(tmp_path / 'trace.json')!r}); "
        "assert t.replay(parse(t.policy)) == t.plans(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_masks_are_named_on_request():
    trace = Trace(
        policy="x",
        steps=2,
        images=1,
        grid=(4, 4),
        records=(step(0, 0, Plan((large(),))), step(1, 0, HYBRID, mask=(1, 2, 3, 9))),
    )
    assert trace.plans() == ((Plan((large(),)), HYBRID),)
    named = trace.plans(masks=True)[0]
    assert named[0] == Plan((large(),))
    assert named[1] == Plan((small(), Stroke("L", Region(0.25, tokens=(1, 2, 3, 9)))), 1)


# --- JSON ---

STEPS = st.builds(
    Step,
    index=st.integers(0, 50),
    image=st.integers(0, 3),
    sigma=st.none() | st.floats(0, 1),
    plan=PLANS,
    drawn=PLANS,
    distance=st.none() | st.floats(0, 1e6),
    seconds=st.floats(0, 10),
    large_tokens=st.integers(0, 99),
    mask=st.none() | st.sets(st.integers(0, 99)).map(lambda s: tuple(sorted(s))),
    fallback=st.none() | st.text(),
)
TRACES = st.builds(
    Trace,
    policy=ANY.map(str),
    steps=st.integers(1, 50),
    images=st.integers(1, 4),
    grid=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    records=st.lists(STEPS, max_size=4).map(tuple),
    flags=st.lists(st.text(), max_size=2).map(tuple),
)


@given(TRACES)
def test_a_trace_round_trips_through_json(trace):
    assert Trace.from_json(json.loads(json.dumps(trace.to_json(masks=True)))) == trace


@given(TRACES)
def test_without_masks_nothing_else_is_lost(trace):
    read = Trace.from_json(json.loads(json.dumps(trace.to_json())))
    assert all(s.mask is None for s in read.records)
    assert read.to_json() == trace.to_json()


def test_a_trace_is_saved_and_loaded(tmp_path):
    trace = simulated(HybridStitch(), [[None, 0.4, 0.2]], 4)
    trace.save(tmp_path / "trace.json")
    assert Trace.load(tmp_path / "trace.json") == trace


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not json", "trace.json is not JSON ("),
        ("[1, 2]", "trace.json holds no trace; write one with `trace.save(path)`"),
        ("{}", "this trace has version None, this release reads version 1; record it again, or install the release"),
        ('{"version": 2}', "this trace has version 2, this release reads version 1"),
        ('{"version": 1}', "this is not a trace ('records'); write one with `trace.save(path)`"),
        ('{"version": 1, "records": [{}]}', "this is not a trace ('plan')"),
        ('{"version": 1, "records": [7]}', "this is not a trace ("),
        ('{"version": 1, "records": [], "grid": [1, 2, 3]}', "this is not a trace ("),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, text, says):
    (tmp_path / "trace.json").write_text(text)
    with pytest.raises(TraceError) as caught:
        Trace.load(tmp_path / "trace.json")
    assert says in str(caught.value)


# --- reading ---


def test_the_parts_of_a_trace():
    trace = simulated(HybridStitch(), [[None, 0.4, 0.4, 0.2], [None, 0.9, 0.4, 0.2]], 6, images=2)
    assert trace.tokens == 16
    assert trace.seconds == pytest.approx(6.0)
    assert [s.index for s in trace.of(1)] == list(range(6))
    assert trace.switches(0) == (2, 4)
    assert trace.switches(1) == (3, 4)


def test_the_summary_is_a_table_of_stretches():
    plans = [Plan((large(),)), Plan((large(),)), HYBRID, Plan((small(),), 2)]
    records = [step(i, 0, plan, distance=None if i == 0 else 0.5 / i) for i, plan in enumerate(plans)]
    records[2] = step(2, 0, HYBRID, drawn=Plan((large(),), 1), distance=0.25, fallback="no keys and values")
    trace = Trace(policy="hybrid-stitch", steps=4, images=1, grid=(4, 4), records=tuple(records), flags=("a flag",))
    assert trace.summary().splitlines() == [
        "hybrid-stitch: 1 image(s), 4 steps, 16 tokens",
        "image     steps drew            L tokens  D first     last  seconds",
        "    0       0-1 L                   100%        -   0.5000    1.000",
        "    0       2-2 L                   100%   0.2500   0.2500    0.500",
        "    0       3-3 S                     0%   0.1667   0.1667    0.500",
        "fell back: no keys and values (1 step(s))",
        "note: a flag",
    ]


# --- notes ---

POLICY = HybridStitch(thresholds=(0.5, 0.3))


def test_thresholds_that_never_fire_are_noted():
    trace = simulated(POLICY, [[None, 0.9, 0.8, 0.7, 0.6], [None, 0.9, 0.4, 0.4, 0.2]], 6, images=2)
    assert trace.notes(POLICY) == (
        "never left the large model: image(s) [0], smallest D 0.2000; raise the first threshold",
    )


def test_thresholds_that_always_fire_are_noted():
    trace = simulated(POLICY, [[None, 0.1, 0.1, 0.1]], 6)
    (note,) = trace.notes(POLICY)
    assert note.startswith(
        "left every stage at its first chance: image(s) [0]; the thresholds decide nothing here, lower"
    )


@pytest.mark.parametrize("patience", [1, 2, 3, 4])
def test_the_first_chance_counts_only_steps_that_have_a_distance(patience):
    policy = HybridStitch(patience=patience)
    trace = simulated(policy, [[None] + [0.0] * 20], 20)
    assert "first chance" in trace.notes(policy)[0]


def test_thresholds_that_decide_are_not_noted():
    assert simulated(POLICY, [[None, 0.9, 0.4, 0.35, 0.2]], 8).notes(POLICY) == ()
    assert simulated(SRDiffusion(threshold=0.5), [[None, 0.9, 0.4]], 8).notes(SRDiffusion(threshold=0.5)) == ()


def test_fixed_programs_and_interrupted_runs_have_no_notes():
    for policy in (LargeOnly(), Schedule("L2 S*")):
        assert simulated(policy, [[None, 0.1, 0.1]], 6).notes(policy) == ()
    whole = simulated(POLICY, [[None, 0.9]], 6)
    cut = Trace(policy=whole.policy, steps=6, images=1, grid=(4, 4), records=whole.records[:3])
    assert cut.notes(POLICY) == ()


def test_a_run_without_distances_is_noted_without_a_number():
    trace = simulated(POLICY, [[]], 6)
    assert "smallest D -;" in trace.notes(POLICY)[0]
