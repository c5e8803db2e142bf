"""What is compared: switch steps from the paper's latencies, thresholds, rivals at equal time, the front."""

from itertools import count
from statistics import mean
from types import SimpleNamespace

import numpy as np
import pytest

from hybridstitch.measure.price import Prices, fixed_plans
from hybridstitch.policies.methods import HybridStitch, LargeOnly
from hybridstitch.policies.plan import Plan, Region, Stroke, large, small
from hybridstitch.policies.presets import PRESETS
from hybridstitch.policies.replay import Replay
from hybridstitch.policies.trace import Step, Trace
from hybridstitch.reproduce import implied, thresholds, timing
from hybridstitch.reproduce.methods import Method, changed, needed, resolve, rows
from hybridstitch.reproduce.pareto import Contender, at_time, chances
from hybridstitch.reproduce.prices import dense
from hybridstitch.reproduce.results import read_times

PRICES = Prices(call=0.0, step=0.02, large=2.0, small=0.4, masked={"fresh": (0.1, 2.0), "cached": (0.0, 1.0)})
HYBRID = Stroke("L", Region(0.3))


def trace_of(*plans):
    records = [
        Step(index=i, image=0, sigma=None, plan=p, drawn=p, distance=0.1, seconds=1.0, large_tokens=0)
        for i, p in enumerate(plans)
    ]
    return Trace(policy="x", steps=len(plans), images=1, grid=(4, 4), records=tuple(records))


# --- switch steps ---


@pytest.mark.parametrize("name", [n for n in implied.shares() if n != "sr-diffusion"])
def test_implied_switches_cost_what_the_paper_measured(name):
    """Eq. 3 with h for M and Eq. 4, at the implied shares, give the paper's latency back."""
    masks, small_step = PRESETS[name].policy.masks, implied.small_step()
    bounds = implied.shares()[name]
    masked = sum((b - a) * implied.masked_step(m) for a, b, m in zip(bounds, bounds[1:], masks, strict=False))
    assert bounds[0] + masked + (1 - bounds[0]) * small_step == pytest.approx(implied.seconds(name))
    assert list(bounds) == sorted(bounds)


def test_the_last_switch_is_that_of_sr_diffusion():
    assert implied.small_step() == pytest.approx((14.74 / 20.72 - 0.6) / 0.4)
    assert {bounds[-1] for bounds in implied.shares().values()} == {implied.shares()["sr-diffusion"][0]}


@pytest.mark.parametrize("steps", [6, 9, 50])
def test_switches_rise_at_every_number_of_steps(steps):
    for name, found in implied.switches(steps).items():
        assert list(found) == sorted(set(found)), name
        assert 2 <= found[0] <= found[-1] <= steps


# --- thresholds ---


def decided(policy, curve, steps):
    """The steps at which the library's own rule leaves each stage on these distances."""
    records = [
        Step(index=i, image=0, sigma=None, plan=Plan(()), drawn=Plan(()), distance=d, seconds=0, large_tokens=0)
        for i, d in enumerate(curve)
    ]
    plans = Trace(policy="", steps=steps, images=1, grid=(4, 4), records=tuple(records)).replay(policy)[0]
    return tuple(i for i in range(1, steps) if plans[i].stage > plans[i - 1].stage)


def test_thresholds_on_falling_distances_reach_every_target():
    curves = [[(1.0 + 0.03 * place) * 0.9**i for i in range(50)] for place in range(3)]

    def record(programs):
        return [dict.fromkeys(mine, curves[place]) for place, mine in enumerate(programs)]

    found = thresholds.calibrate(50, 3, record)
    for name, policy in found.policies.items():
        assert found.reached[name] == tuple(map(float, found.targets[name])), name
        assert decided(policy, curves[1], 50) == found.targets[name], name
    assert thresholds.Fitted.from_json(found.to_json()) == found


def test_where_hybrid_distances_rise_the_large_stage_ends_by_steps():
    """D jumps when tokens change hands: τ_1 must lie above what the large model's curve would ask of τ_0."""
    alone = [0.9**i for i in range(50)]
    entered = [0.5 * 0.97**i for i in range(50)]

    def seen(program):
        switch = int(program.program.split()[0][1:])
        return alone if "@" not in program.program else alone[:switch] + entered

    def record(programs):
        return [{name: seen(program) for name, program in mine.items()} for mine in programs]

    found = thresholds.calibrate(50, 2, record)
    policy = found.policies["hybridstitch-10"]
    assert policy.min_large * 50 == pytest.approx(found.targets["hybridstitch-10"][0] - 0.5)
    assert policy.thresholds[1] > alone[found.targets["hybridstitch-10"][0] - 1]
    assert found.reached["hybridstitch-10"][0] == found.targets["hybridstitch-10"][0]


# --- rows ---


@pytest.mark.parametrize("steps", [6, 8, 50])
def test_every_row_fits_its_number_of_steps(steps):
    every = rows(steps, {})
    assert len({m.name for m in every}) == len(every)
    for method in every:
        sources = (method.policy is not None, method.of is not None, method.take == "cache-dit")
        assert sources.count(True) == 1, method  # a policy of its own, another row's, or cache-dit's own way
        if method.policy is not None:
            method.policy.check(method.steps)
    assert {m.name for m in every if m.paper is not None} == {n for n, p in PRESETS.items() if p.paper is not None}


def test_a_row_brings_what_it_takes_something_of():
    every = rows(50, {})
    found = needed([m for m in every if m.name == "hybridstitch-20-static"], every)
    assert [m.name for m in found] == ["large", "hybridstitch-20", "hybridstitch-20-static"]


@pytest.mark.parametrize("take", ["fewer-steps", "sr-diffusion", "t-stitch"])
@pytest.mark.parametrize("hybrid", [11, 14])
def test_rivals_take_the_time_of_their_row(take, hybrid):
    plans = [Plan((large(),))] * 10 + [Plan((small(), HYBRID), 1)] * hybrid + [Plan((small(),), 2)] * (40 - hybrid)
    base = trace_of(*plans)
    method = Method(name="rival", group="matched", steps=50, of="row", take=take)
    costs = []
    for image in range(40):
        steps, policy = resolve(method, image, {"row": base}, PRICES)
        costs.append(dense(PRICES, fixed_plans(policy, steps)))
    assert mean(costs) == pytest.approx(dense(PRICES, plans), rel=2e-3)
    assert max(costs) - min(costs) < 1.2  # never more than a dense step apart


def test_ablations_change_one_thing():
    plan = Plan((small(), HYBRID), 1)
    assert changed(plan, "static") == Plan((small(), Stroke("L", Region(0.3, frozen=True))), 1)
    assert changed(plan, "full-large") == Plan((small(), Stroke("L", Region(0.3), dense=True)), 1)
    assert changed(plan, "no-mask") == Plan((small(),), 1)
    base = trace_of(Plan((large(),)), Plan((large(),)), plan, Plan((small(),), 2))
    method = Method(name="s", group="table2", steps=4, of="row", take="static")
    steps, policy = resolve(method, 0, {"row": base}, PRICES)
    assert steps == 4
    assert isinstance(policy, Replay)
    assert policy.plans[0][0] == Plan((large(),))


# --- the front ---


def point(time, value, spread=0.0):
    return Contender(time=time, value=value, replicates=np.array([value - spread, value, value + spread]))


def test_the_front_counts_replicates():
    points = {"a": point(1, 10), "b": point(2, 12), "c": point(3, 11.5, 1.0), "d": point(4, 13)}
    found = chances(points)
    assert (found["a"], found["b"], found["d"]) == (1, 1, 1)
    assert found["c"] == pytest.approx(1 / 3)  # 10.5 and 11.5 are beaten by 12 in less time, 12.5 is not


def test_the_large_model_competes_between_its_step_counts():
    line = [point(1, 10), point(4, 14)]
    between = at_time(line, 2.0)
    assert between is not None
    assert between.value == pytest.approx(12)  # log 2 / log 4 of the way
    assert at_time(line, 5.0) is None
    points = {"few": line[0], "many": line[1], "stitched": point(2, 11)}
    assert chances(points)["stitched"] == 1
    assert chances(points, line)["stitched"] == 0
    assert chances(points, line)["many"] == 1


def test_adaptive_rows_take_the_thresholds_of_the_pair():
    mine = HybridStitch(masks=(0.3,), thresholds=(0.2, 0.1))
    every = {m.name: m for m in rows(50, {"hybridstitch-30": mine})}
    assert every["hybridstitch-30"].policy == mine
    assert every["hybridstitch-10"].policy == PRESETS["hybridstitch-10"].policy
    assert every["large"].policy == LargeOnly()


# --- timing ---


def test_what_was_timed_before_is_timed_again_beside_what_is_new(tmp_path, monkeypatch):
    """So that speeds compare calls that took turns, whichever table was made first."""
    settings = SimpleNamespace(latency=tmp_path / "latency.csv", latency_n=2)
    equipment = SimpleNamespace(settings=settings, pipe=None)
    every, seconds = rows(50, {}), count(1)
    taken = lambda *_: SimpleNamespace(denoising_seconds=next(seconds), total_seconds=1.0)  # noqa: E731
    monkeypatch.setattr(timing, "warm_up", lambda _: None)
    monkeypatch.setattr(timing, "stopwatch_of", lambda *_: SimpleNamespace(round=lambda: None))
    monkeypatch.setattr(timing, "loop_prices", lambda _: PRICES)
    monkeypatch.setattr(timing, "_call", taken)
    monkeypatch.setattr(timing, "_row", lambda name, image, one, now: dict.fromkeys(timing.TIMED, "1") | {
        "method": name, "image": str(image), "denoising_seconds": str(one.denoising_seconds)
    })  # fmt: skip

    def timed(*names):
        mine = needed([m for m in every if m.name in names], every)
        timing.time_all(equipment, mine, every, PRICES, lambda done, of: None)
        return {key: float(row["denoising_seconds"]) for key, row in read_times(settings).items()}

    first = timed("t-stitch")
    assert {name for name, _ in first} == {"large", "t-stitch"}
    assert timed("t-stitch", "large") == first  # nothing is missing
    second = timed("hybridstitch-20")
    assert {name for name, _ in second} == {"large", "t-stitch", "hybridstitch-20"}
    assert min(second.values()) > max(first.values())
