"""Calibration on a small random pair: what is tried, what is kept, that it resumes, repeats itself, and refuses."""

import json
import sys
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from diffusers import UniPCMultistepScheduler

from hybridstitch.batch.crew import LocalCrew
from hybridstitch.calibrate import calibrate
from hybridstitch.calibrate.board import Board
from hybridstitch.calibrate.candidates import adaptive, beside, explored, near
from hybridstitch.calibrate.choice import unbeaten, worth_two
from hybridstitch.calibrate.compare import Score
from hybridstitch.calibrate.filling import Filling
from hybridstitch.calibrate.gaps import EDITS, alike, edited, rivals
from hybridstitch.calibrate.plans import Candidate
from hybridstitch.calibrate.search import Search
from hybridstitch.calibrate.state import State
from hybridstitch.calibrate.table import Standing, best_by_speed, pareto
from hybridstitch.calibrate.timekeeper import Timekeeper
from hybridstitch.calibrate.winners import measured_speed, pace, time_winners, turns_of
from hybridstitch.disk import files as disk
from hybridstitch.disk.lock import alone
from hybridstitch.errors import BusyError
from hybridstitch.measure.price import Prices, fixed_plans
from hybridstitch.policies.methods import LargeOnly, Schedule, SmallOnly
from hybridstitch.policies.skip import Skip
from hybridstitch.policies.srdiffusion import SRDiffusion
from hybridstitch.policies.trace import Step, Trace
from hybridstitch.recipe import Recipe, RecipeError, kind_of
from hybridstitch.recipe.file import NEAR
from small_models import stitched, worded

PROMPTS = ("abc", "dog", "cab", "bed")
SETTING = {"steps": 6, "guidance": 4.0, "size": (32, 32), "minutes": 0.1}
TIMES = ('"prices"', '"timed"', '"spent"')  # lines of a state that tell times
PRICES = Prices(
    call=0.2,
    step=0.01,
    large=1.0,
    small=0.15,
    masked={"fresh": (0.1, 1.0), "cached": (0.05, 1.0), "cond": (0.05, 0.5)},
)


@pytest.fixture(scope="module")
def pipe():
    return worded(stitched())


@pytest.fixture(scope="module")
def whole(pipe, tmp_path_factory):
    """A recipe of everything, and the state it left."""
    state = tmp_path_factory.mktemp("whole") / "state"
    return calibrate(pipe, PROMPTS, state=state, **SETTING), state


# --- what is tried ---


@pytest.mark.parametrize("speed", [1.3, 1.8, 2.8, 6.0])
def test_candidates_are_priced_at_the_wanted_speed(speed):
    found = near(speed, 50, PRICES)
    large = PRICES.seconds(LargeOnly(), 50)
    assert all(abs(large / PRICES.seconds(policy, steps) / speed - 1) <= 0.045 for policy, steps in found)
    kinds = {type(policy) for policy, _ in found}
    assert {LargeOnly, Schedule} <= kinds
    letters = {policy.program[0] + policy.program.split()[1][0] for policy, _ in found if isinstance(policy, Schedule)}
    assert letters == {"LS", "SL", "LH"}
    assert {policy.text for policy, _ in found if policy.can_mask} == {"fresh", "cached"}
    assert len(found) == len({(str(policy), steps) for policy, steps in found})


@pytest.mark.parametrize("speed", [1.5, 3.0, 8.0])
def test_beside_a_speed_is_the_large_model_a_little_slower_and_a_little_faster(speed):
    found = beside(speed, 50, PRICES)
    speeds = [PRICES.seconds(LargeOnly(), 50) / PRICES.seconds(*one) / speed for one in found]
    slower, faster = (True, False), (False, True)
    where = [(share < 1 / 1.04, share > 1.04) for share in speeds]
    assert [type(policy) for policy, _ in found] == [LargeOnly, LargeOnly, Skip, Skip]
    assert where == [faster, slower, faster, slower]
    assert all(0.8 < share < 1.3 for share in speeds)


def test_few_steps_have_candidates_of_every_count_of_masked_steps():
    found = [policy.program for policy, steps in near(8.0, 50, PRICES) if steps <= 10 and policy.can_mask]
    assert {word.partition("@")[0] for program in found for word in program.split() if "H" in word} >= {
        "H1",
        "H2",
        "H4",
    }


def test_exploring_looks_at_every_speed():
    large = PRICES.seconds(LargeOnly(), 50)
    speeds = sorted(large / PRICES.seconds(policy, steps) for policy, steps in explored(50, PRICES))
    assert speeds[0] < 1.5
    assert speeds[-1] > 10
    assert all(b / a < 1.35 for a, b in pairwise(speeds))


@pytest.mark.parametrize("small", [0.15, 0.9, 2.0])
def test_few_steps_are_tried_in_every_count_whatever_they_cost(small):
    found = explored(4, replace(PRICES, small=small))
    assert {(policy.name, steps) for policy, steps in found} >= {
        (name, steps) for name in ("large", "small") for steps in (2, 3)
    }


def test_adaptive_policies_need_room():
    assert adaptive(6) == []
    assert {policy.name for policy, _ in adaptive(50)} == {"sr-diffusion", "hybrid-stitch"}


# --- what is kept ---


def row(closeness, speed, kind="fewer steps"):
    scores = tuple(
        Score(prompt=p, steps=5, policy="large", closeness=c, psnr=20.0, seconds=1.0, distances=())
        for p, c in enumerate(closeness)
    )
    return Standing(LargeOnly(), 5, kind, speed, scores)


def test_the_front_and_the_best_of_every_span_of_speeds():
    rows = [row([0.9], 2.0), row([0.8], 1.5), row([0.7], 3.0), row([0.95], 1.2), row([0.85], 1.9)]
    assert [r.speed for r in pareto(rows)] == [1.2, 2.0, 3.0]
    assert [r.speed for r in best_by_speed(rows, 1)] == [1.2, 1.5, 2.0, 3.0]
    assert [r.speed for r in best_by_speed(rows, 2)] == [1.2, 1.5, 2.0, 1.9, 3.0]


# --- what a front lacks ---


def of(policy, steps, closeness, speed, shift=None):
    scores = (
        Score(prompt=0, steps=steps, policy=str(policy), closeness=closeness, psnr=20.0, seconds=1.0, distances=()),
    )
    return Standing(policy, steps, kind_of(policy, steps, 50), speed, scores, shift)


def words_cost(plan):
    """As fast as 50 large steps, where a mask costs half a large step and a small one a quarter."""
    return 50 / sum({"L": 1.0, "S": 0.25, "R": 0.5, "H": 0.75, "-": 0.0}[word[0]] for word in plan.words)


def test_few_steps_of_a_speed_between_two_shapes_are_a_word_away_from_one():
    slower = of(Schedule("S L R@0.3 L", text="cached"), 4, 0.8, 18.2, shift=5.0)
    faster = of(LargeOnly(), 2, 0.6, 25.0, shift=3.0)
    found = edited(slower, faster, 22.2, words_cost)
    assert 1 <= len(found) <= EDITS
    for plan in found:
        assert abs(words_cost(plan) / 22.2 - 1) <= NEAR / 2
    assert Candidate(Schedule("S L2", text="fresh"), 3, 5.0) in found
    long = of(Schedule("L R@0.3 " * 10 + "L", text="cached"), 21, 0.9, 3.3)
    assert edited(long, long, 3.4, words_cost) == []


def test_the_large_model_alone_is_tried_beside_a_winner_where_it_is_likely_as_close():
    many, few = of(Skip(20), 50, 0.9952, 2.5), of(Skip(10), 50, 0.991, 5.0)
    mixed = Schedule("L R@0.3 L", text="cached")
    for closeness, tried in ((0.9937, True), (0.9942, True), (0.9944, False)):  # .9934 lies between the two rows
        found = list(rivals([many, of(mixed, 3, closeness, 3.4), few], [many, few], words_cost))
        assert found == [Candidate(Skip(15), 50)] * tried
    assert list(rivals([many, few], [many, few], words_cost)) == []
    ends = [of(Skip(10), 50, 0.984, 5.0), of(Skip(8), 50, 0.974, 6.25)]
    found = list(rivals([ends[0], of(mixed, 3, 0.976, 5.25), ends[1]], ends, words_cost))
    assert found == [Candidate(Skip(9), 50)]  # 5.56 times: the nearest there is, though it is 6 % off
    other = of(Skip(10, early=1.2), 50, 0.991, 5.0)  # not of one make
    found = list(rivals([of(mixed, 3, 0.9937, 3.4)], [many, other], words_cost))
    assert found == [Candidate(Skip(15), 50), Candidate(Skip(15, early=1.2), 50)]


@pytest.mark.parametrize(
    ("closeness", "speed", "kept"),
    [
        (0.9925, 3.4, False),  # .9921 lies between the two rows of the large model alone
        (0.9932, 3.4, True),
        (0.9919, 3.4, False),
        (0.992, 3.6, True),  # as close, but the large model alone has no row of this speed
        (0.5, 5.6, True),
    ],
)
def test_where_the_large_model_alone_is_about_as_close_it_serves(closeness, speed, kept):
    alone = [of(Skip(15), 50, 0.992, 3.33), of(Skip(20), 50, 0.9952, 2.5), of(Skip(10), 50, 0.987, 5.0)]
    both = of(Schedule("L R@0.3 L", text="cached"), 3, closeness, speed)
    slower = of(Schedule("S L R@0.3 L", text="cached"), 4, 0.9999, 2.6)
    assert [one for one in worth_two([*alone, both, slower]) if one not in alone] == [both] * kept + [slower]
    search = Search(SimpleNamespace(reference=Candidate(LargeOnly(), 50)), (0,), (1,), 0.0)
    for wanted in (None, speed):
        assert (both in search._winners([*alone, both], wanted)) == kept


def test_a_row_of_both_gives_way_only_to_one_that_serves():
    alone = [of(Skip(16), 50, 0.93, 3.0), of(Skip(14), 50, 0.89, 3.35), of(Skip(12), 50, 0.84, 4.0)]
    program = Schedule("L R@0.3 L", text="cached")
    close, ahead = of(program, 3, 0.907, 3.25), of(program, 3, 0.905, 3.5, shift=5.0)  # `ahead` beats the row at 3.35
    assert worth_two([*alone, close, ahead]) == [*alone, close, ahead]
    assert worth_two([*alone, close]) == alone
    wanted = of(program, 3, 0.885, 3.45)
    assert worth_two([*alone, wanted]) == alone
    assert worth_two([*alone, wanted], 3.5) == [*alone, wanted]  # the row at 3.35 has not this speed
    small = Standing(SmallOnly(), 50, "small", 3.5, wanted.scores)
    assert worth_two([*alone, small]) == [*alone, small]  # one model, too


def test_plans_that_differ_by_a_hair_fill_a_gap_once():
    masks = ((0.149, 0.0745), (0.149, 0.0744), (0.1, 0.05))
    one, hair, smaller = (Candidate(Schedule(f"S2 L R@{a} R@{b} L", text="cached"), 6, 5.0) for a, b in masks)

    def speed_of(plan):
        return {one: 12.0, hair: 12.1, smaller: 12.5}.get(plan, 12.0)

    assert alike(one, hair, speed_of)
    assert not alike(one, smaller, speed_of)
    assert not alike(one, replace(one, shift=3.0), speed_of)
    assert not alike(one, Candidate(LargeOnly(), 6, 5.0), speed_of)
    carried = replace(one, policy=replace(hair.policy, carry=0.95, follow=0.25))
    assert not alike(one, carried, speed_of)
    filling = Filling(SimpleNamespace(), SimpleNamespace(speed=speed_of), (0, 1), {})
    for scores, drawn in (([0.9], []), ([0.9, 0.9], [one, hair])):
        filling.tried[one] = replace(row(scores, 12.0), policy=one.policy, steps=6, shift=5.0)
        assert [plan for plan in (one, hair, smaller) if filling.drawn(plan)] == drawn


def test_what_a_faster_candidate_is_clearly_closer_than_is_dropped():
    rows = [row([closeness], speed) for closeness, speed in ((0.9976, 1.31), (0.9982, 1.75), (0.9979, 1.6), (0.9, 2.0))]
    assert [one.speed for one in unbeaten(rows)] == [1.6, 1.75, 2.0]
    assert len(unbeaten([row([0.89], 1.9), row([0.9], 2.0)])) == 2
    assert len(unbeaten([row([0.889], 1.9), row([0.9], 2.0)])) == 1


# --- a recipe ---


def test_a_recipe_says_what_it_was_measured_with_and_on(whole, pipe):
    recipe, _ = whole
    assert (recipe.home.steps, recipe.home.guidance, recipe.home.width, recipe.home.height) == (6, 4.0, 32, 32)
    assert recipe.home.parameters[0] == sum(p.numel() for p in pipe.transformer.large.parameters())
    assert recipe.home.scheduler == "FlowMatchEulerDiscreteScheduler shift=3.0"
    assert (recipe.prompts["searched"], recipe.prompts["checked"]) == (3, 1)
    assert set(recipe.shares) == {"0.15", "0.3"}
    assert all(0 < share < 1 for share in recipe.shares.values())
    assert any("s = " in sentence and "f = " in sentence and "h = " in sentence for sentence in recipe.verdict)


def test_its_points_are_a_front_that_begins_with_the_large_model(whole):
    points = whole[0].points
    assert (points[0].kind, points[0].closeness.mean, points[0].predicted) == ("large", 1.0, 1.0)
    assert len(points) > 1
    for slower, faster in pairwise(points):
        assert slower.predicted < faster.predicted
        assert slower.closeness.mean > faster.closeness.mean
    for point in points:
        assert point.closeness.number == 4  # prompts searched with, and those kept back
        assert -1 < point.held_out <= 1
        assert point.measured > 0
        assert point.memory_mib > 0
        assert len(point.distances) == point.steps


def test_the_same_seed_and_recorded_times_give_the_same_recipe(whole, pipe, tmp_path):
    recipe, state = whole
    times = [line for line in state.read_text().splitlines() if any(what in line for what in ('"of"', *TIMES))]
    again = tmp_path / "state"
    again.write_text("\n".join(times) + "\n")
    assert calibrate(pipe, PROMPTS, state=again, **SETTING).to_json() == recipe.to_json()
    assert len(again.read_text().splitlines()) > len(times)  # it did draw


def test_a_calibration_that_was_killed_goes_on(whole, pipe, tmp_path):
    recipe, state = whole
    lines = state.read_text().splitlines()
    cut = tmp_path / "state"
    timed = [line for line in lines[4:] if any(what in line for what in TIMES)]
    cut.write_text("\n".join([*lines[:4], *timed, lines[4][: len(lines[4]) // 2]]))
    drawn = []
    found = calibrate(pipe, PROMPTS, state=cut, on_progress=lambda share, doing: drawn.append(share), **SETTING)
    assert found.to_json() == recipe.to_json()
    assert drawn == sorted(drawn)
    assert drawn[-1] == 1.0
    finished = []
    calibrate(pipe, PROMPTS, state=cut, on_progress=lambda share, doing: finished.append(doing), **SETTING)
    assert not any("candidates" in doing for doing in finished)


def test_the_state_of_another_calibration_is_put_beside_and_taken_up_again(whole, pipe, tmp_path):
    recipe, left = whole
    state = tmp_path / "mine.state"
    state.write_bytes(left.read_bytes())
    calibrate(pipe, PROMPTS, state=state, speed=1.5, prices=PRICES, **SETTING)
    assert json.loads(state.read_text().splitlines()[0])["of"]["asked"] == {"speed": 1.5}
    (beside,) = tmp_path.glob("mine-*.state")
    assert beside.read_bytes() == left.read_bytes()
    doing = []
    again = calibrate(pipe, PROMPTS, state=state, on_progress=lambda share, what: doing.append(what), **SETTING)
    assert again.to_json() == recipe.to_json()
    assert not any("candidates" in what for what in doing)
    assert state.read_bytes() == left.read_bytes()
    (other,) = tmp_path.glob("mine-*.state")
    assert json.loads(other.read_text().splitlines()[0])["of"]["asked"] == {"speed": 1.5}


def test_a_file_that_is_no_state_is_never_emptied(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    State(path, {"asked": {}}).set_prices(PRICES)
    (beside,) = tmp_path.glob("notes-*.txt")
    assert beside.read_text() == "mine"


def test_a_kill_while_a_state_is_taken_up_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "state"
    State(path, {"asked": {}}).set_prices(PRICES)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"shares": [0, {"0.')  # a line that a kill cut short

    def killed(file, data):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(disk, "pour", killed)
        with pytest.raises(KeyboardInterrupt):
            State(path, {"asked": {}})
    assert path.read_bytes().startswith(whole)
    again = State(path, {"asked": {}})
    assert again.prices == PRICES
    assert path.read_bytes() == whole


def test_two_calibrations_do_not_share_a_folder(pipe, tmp_path):
    with alone(tmp_path, "this test"), pytest.raises(BusyError, match="another calibration"):
        calibrate(pipe, PROMPTS, state=tmp_path / "state", prices=PRICES, **SETTING)


def test_times_of_a_state_without_turns_are_in_order(tmp_path):
    path = tmp_path / "state"
    State(path, {})
    with path.open("a") as file:
        file.write('{"timed": [6, "large", 2.0]}\n{"timed": [6, "large", 3.0]}\n{"timed": [6, "large", 4.0, 2]}\n')
    assert State(path, {}).timed == {(6, "large"): {0: 2.0, 1: 3.0, 2: 4.0}}


# --- what is drawn, and how long it took ---


def test_references_are_drawn_once_each_and_before_what_is_compared_with_them():
    jobs = []

    def draw(work, tasks):
        for place, (one, reference) in enumerate(tasks):
            jobs.append((one.prompt, one.policies, reference is not None))
            about = {"prompt": one.prompt, "steps": one.steps, "closeness": 1.0, "psnr": 1.0, "seconds": 1.0}
            scores = [Score(policy=text, distances=(), **about) for text in one.policies]
            yield place, (scores, np.zeros((2, 2, 3), np.uint8) if reference is None else None)

    comparer = SimpleNamespace(conditions=SimpleNamespace(steps=6), prices=PRICES)
    board = Board(comparer, State(None, {}), lambda *_: None)
    board._crew = SimpleNamespace(map=draw)
    board.draw_references((0, 1), 0.0)
    board.evaluate([board.reference, Candidate(SmallOnly(), 6)], (0, 1, 2), (0.0, 1.0))
    board.evaluate([board.reference, Candidate(SmallOnly(), 6)], (0, 1, 2), (0.0, 1.0))
    references = [(prompt, ("large",), False) for prompt in (0, 1, 2)]
    assert jobs == [*references, *((prompt, ("small",), True) for prompt in (0, 1, 2))]


def test_a_part_that_is_recorded_counts_as_it_did_and_one_that_broke_does_not():
    state = State(None, {})
    state.add_spent("prices", 3.0)
    state.add_spent("first", 5.0)
    kept = Timekeeper(state)
    with kept.part("first"):
        pass
    assert (kept.drawing, kept.used) == (5.0, 8.0)
    with pytest.raises(KeyError), kept.part("broken"):
        raise KeyError
    with kept.part("next"):
        pass
    assert [*state.spent] == ["prices", "first", "next"]
    assert kept.drawing == 5.0 + state.spent["next"]


# --- the winners' times ---


class Clockwork:
    """Stands in for a search whose calls take what they are told to take."""

    def __init__(self, seconds):
        self.seconds, self.drawn = seconds, []
        self.state = State(None, {})
        self.comparer = SimpleNamespace(
            pipe=None, prompts=PROMPTS, seed=0, prices=PRICES, conditions=SimpleNamespace(steps=6, draw=self.draw)
        )

    def draw(self, pipe, prompt, policy, steps, seed, *, shift, levels):
        self.drawn.append(str(policy))
        plans = fixed_plans(policy, steps)
        records = tuple(
            Step(
                index=index, image=0, sigma=None, plan=plan, drawn=plan, distance=None, large_tokens=0,
                seconds=sum(map(PRICES.stroke, plan.strokes)),
            )
            for index, plan in enumerate(plans)
        )  # fmt: skip
        trace = Trace(policy=str(policy), steps=steps, images=1, grid=(4, 4), records=records)
        return SimpleNamespace(total_seconds=self.seconds[str(policy)].pop(0), trace=trace)

    def on_progress(self, share, doing):
        pass


WINNERS = (
    Standing(LargeOnly(), 6, "large", 1.0, ()),
    Standing(Schedule("L4 S2"), 6, "whole steps", 1.5, ()),
    Standing(Schedule("L3 S3"), 6, "whole steps", 2.0, ()),
    Standing(SmallOnly(), 6, "small", 6.0, ()),
)
STEADY, MIXED = (str(one.policy) for one in WINNERS[1:3])


def clockwork():
    """The mixture is told 3 times as fast once, then as priced; the others as priced."""
    return Clockwork({"large": [6.0] * 3, STEADY: [4.0], MIXED: [2.0, 3.0, 3.0], "small": [1.0] * 3})


def test_the_reference_and_what_strays_or_takes_little_are_timed_again():
    search = clockwork()
    time_winners(search, WINNERS, 1)
    assert search.drawn == ["large", STEADY, MIXED, "small", *["large", MIXED, "small"] * 2]
    assert measured_speed(search, WINNERS[2]) == pytest.approx(2.0)


def test_times_that_stray_twice_and_agree_are_believed():
    search = clockwork()
    search.seconds[MIXED] = [2.0, 2.04]
    time_winners(search, WINNERS, 1)
    assert search.drawn == ["large", STEADY, MIXED, "small", "large", MIXED, "small", "large", "small"]


@pytest.mark.parametrize("killed", range(11))
def test_timing_that_was_killed_goes_on_with_the_same_calls(killed):
    whole = clockwork()
    time_winners(whole, WINNERS, 1)
    again = clockwork()
    order = [(one.steps, str(one.policy), turn) for turn in range(3) for one in WINNERS]
    recorded = [(*key, whole.state.timed[key[:2]][key[2]]) for key in order if key[2] in whole.state.timed[key[:2]]]
    for line in recorded[:killed]:
        again.state.add_time(*line)
        again.seconds[line[1]].pop(0)
    time_winners(again, WINNERS, 1)
    assert again.drawn == whole.drawn[killed:]
    assert again.state.timed == whole.state.timed


@pytest.mark.parametrize(("seconds", "turns"), [(30.0, (1, 3)), (13.0, (1, 3)), (9.0, (4, 4)), (0.5, (15, 15))])
def test_short_calls_are_timed_in_more_turns(seconds, turns):
    assert turns_of(seconds, 360.0) == turns
    search = clockwork()
    search.seconds = {name: 15 * times for name, times in search.seconds.items()}
    time_winners(search, WINNERS, *turns)
    assert len(search.state.timed[6, "large"]) == turns[1]
    assert min(map(len, search.state.timed.values())) >= turns[0]


def test_a_later_turn_that_was_recorded_says_nothing_about_an_earlier_one():
    search = clockwork()
    search.state.add_time(6, MIXED, 2, 2.9)  # as from a run in which turn 1 was not needed
    time_winners(search, WINNERS, 1)
    assert search.drawn == ["large", STEADY, MIXED, "small", "large", MIXED, "small", "large", "small"]


def test_the_pace_of_a_call_is_that_of_its_dense_steps_whatever_its_masks_take():
    policy = Schedule("S L R2@0.3 L R2@0.3", text="cached")
    trace = Clockwork({str(policy): [1.0]}).draw(None, "", policy, 7, 0, shift=None, levels=None).trace
    slower = {"L": 1.25, "L@0.3": 3.0, "S": 2.0}
    records = tuple(replace(step, seconds=slower[str(step.drawn)] * step.seconds) for step in trace.records)
    assert pace(replace(trace, records=records), PRICES) == pytest.approx(1.25)


def test_a_slow_step_counts_in_the_pace_as_it_does_in_the_call():
    policy = Schedule("L4")
    trace = Clockwork({str(policy): [1.0]}).draw(None, "", policy, 4, 0, shift=None, levels=None).trace
    first, *rest = trace.records
    records = (replace(first, seconds=3 * first.seconds), *rest)
    assert pace(replace(trace, records=records), PRICES) == pytest.approx(1.5)


def test_a_wanted_speed_is_searched_for(pipe):
    recipe = calibrate(pipe, PROMPTS, speed=1.5, prices=PRICES, **SETTING)
    assert recipe.asked == {"speed": 1.5}
    assert len(recipe.points) > 1
    apart = [point.predicted / 1.5 - 1 for point in recipe.points[1:]]
    assert any(abs(share) <= 0.04 for share in apart)
    assert sum(share < -0.04 for share in apart) <= 1  # one on either side, see below
    assert sum(share > 0.04 for share in apart) <= 1
    assert any(sentence.startswith("At 1.5 times") for sentence in recipe.verdict)


def test_beside_a_wanted_speed_one_winner_is_kept_on_either_side():
    rows = [row([1 - speed / 10], speed) for speed in (1.2, 1.3, 1.48, 1.55, 1.7, 2.2)]
    large = replace(row([1.0], 1.0, "large"), steps=6)
    search = Search(SimpleNamespace(reference=large.candidate), (0,), (1,), 0.0)
    rows = [replace(one, shift=one.speed) for one in rows]  # so that they are other candidates
    assert [one.speed for one in search._winners([large, *rows], 1.5)] == [1.0, 1.3, 1.48, 1.55, 1.7]
    assert {1.3, 1.48, 1.55, 1.7} == {one.speed for one in search._rows_kept(rows, 1, 1.5, None)}


def test_of_quick_candidates_two_of_a_span_draw_all_prompts():
    speeds = (3.3, 3.31, 8.42, 8.53, 8.6)
    rows = [replace(row([0.9 - speed / 1000], speed, "region mask"), shift=speed) for speed in speeds]
    search = Search(SimpleNamespace(reference=Candidate(LargeOnly(), 50)), (0,), (1,), 0.0)
    assert [one.shift for one in search._rows_kept(rows, 1, None, None)] == [3.3, 8.42, 8.53]
    assert [one.shift for one in search._rows_kept(rows, 2, None, None)] == [3.3, 3.31, 8.42, 8.53]


@pytest.mark.parametrize(("steps", "kept"), [(50, [1.65]), (8, [1.65, 1.75, 1.85])])
def test_of_a_reference_of_few_steps_every_narrow_span_has_its_best(steps, kept):
    """Nothing lies between two programs of few steps, so each is needed that none beats."""
    rows = [replace(row([0.95 - speed / 10], speed, "region mask"), shift=speed) for speed in (1.65, 1.75, 1.85)]
    search = Search(SimpleNamespace(reference=Candidate(LargeOnly(), steps)), (0,), (1,), 0.0)
    assert [one.shift for one in search._rows_kept(rows, 1, None, None)] == kept


def test_what_fills_a_gap_is_compared_on_prompts_that_all_drew():
    """The second prompt is the harder one; nothing is known of who drew the first alone, or is of another speed."""
    drawn = {1.49: [0.9, 0.6], 1.5: [0.9, 0.7, 0.9, 0.9], 1.51: [0.9, 0.8, 0.5], 1.505: [1.0], 1.6: [1.0, 1.0]}
    rows = [replace(row(closeness, speed), shift=speed) for speed, closeness in drawn.items()]
    filling = Filling(SimpleNamespace(), SimpleNamespace(), (0, 1, 2, 3), {one.candidate: one for one in rows})
    slower, faster = row([0.9], 1.4), row([0.5], 1.6)
    assert [one.shift for one in filling.known(slower, faster, 1.5)] == [1.51, 1.5]
    assert [one.shift for one in filling.known(slower, replace(faster, speed=1.505), 1.5)] == [1.5, 1.49]


def test_what_fills_a_gap_and_beats_its_neighbours_opens_one_that_is_filled_too(monkeypatch):
    before, filling, later = [(2.84, 0.991), (3.02, 0.987), (3.2, 0.9868)], (3.39, 0.988), (3.11, 0.99)
    made = {speed: replace(row([closeness] * 6, speed), shift=speed) for speed, closeness in [*before, filling, later]}
    board = SimpleNamespace(
        reference=Candidate(LargeOnly(), 50), evaluate=lambda plans, *_: [made[plan.shift] for plan in plans]
    )
    search = Search(board, (0, 1, 2, 3, 4, 5), (6,), 0.0)

    def fillers(self, winners, share):
        front = [one.speed for one in winners]
        wanted = later[0] if front == [2.84, 3.39] else filling[0]
        return [made[wanted].candidate]

    monkeypatch.setattr(Search, "room", None)
    monkeypatch.setattr(Filling, "plans", fillers)
    monkeypatch.setattr(Search, "_check", lambda self, winners: 10.0)
    for time, front in ((10.1, [2.84, 3.11, 3.39]), (9.9, [2.84, 3.39])):  # once at least, then while there is time
        search.time, search._parts = time, Timekeeper(State(None, {}))
        rows = search._filled([made[speed] for speed, _ in before])
        assert [one.speed for one in search._winners(rows, None)] == front


def test_where_what_was_drawn_left_a_gap_programs_a_word_away_are_tried(monkeypatch):
    slower, faster = (Candidate(Schedule(program), 3, 5.0) for program in ("S L2", "S2 L"))
    known = {slower: [0.8] * 4, faster: [0.7] * 4, (drawn := Candidate(LargeOnly(), 2, 3.0)): [0.6] * 4}
    asked = []

    def evaluate(plans, *_):
        asked.extend(plans)
        return [one(plan, [0.75]) for plan in plans]

    def one(plan, scores, speed=2.5):
        made = {"policy": plan.policy, "steps": plan.steps, "shift": plan.shift, "levels": plan.levels}
        return replace(row(scores, speed), **made)

    speeds = {slower: 2.4, faster: 2.62, drawn: 2.5}
    rows = {plan: one(plan, scores, speeds[plan]) for plan, scores in known.items()}
    room = SimpleNamespace(slowest=1.3, fitted=lambda plan: plan, speed=lambda plan: speeds.get(plan, 2.5))
    filling = Filling(SimpleNamespace(evaluate=evaluate), room, (0, 1, 2, 3), dict(rows))
    monkeypatch.setattr("hybridstitch.calibrate.filling.fillers", lambda *_: [drawn])
    found = filling.plans([rows[slower], rows[faster]], 0.88)
    assert asked
    assert not {*asked} & {*known}
    assert len(found) == 1
    assert found[0] in asked


@pytest.mark.parametrize("told", [0.9, 1.06])
def test_a_wanted_speed_is_served_where_whole_calls_take_other_times_than_priced(pipe, monkeypatch, told):
    module = sys.modules["hybridstitch.calibrate.calibrate"]
    monkeypatch.setattr(module, "time_winners", lambda *_: None)
    monkeypatch.setattr(module, "measured_speed", lambda _, one: 1.0 if one.kind == "large" else told * one.speed)
    recipe = calibrate(pipe, PROMPTS, speed=1.5, prices=PRICES, **{**SETTING, "minutes": 0})
    assert abs(recipe.at().speed / 1.5 - 1) <= 0.04
    assert recipe.served == recipe.at()


def test_a_repeated_prediction_has_no_distance(pipe):
    from hybridstitch.calibrate.compare import Comparer, Comparison
    from hybridstitch.calibrate.conditions import Conditions

    conditions = Conditions(width=32, height=32, steps=6, guidance=4.0)
    comparer = Comparer(pipe=pipe, conditions=conditions, prompts=PROMPTS, seed=0, prices=PRICES)
    (_, repeats), _ = comparer.draw(Comparison(0, 6, ("large", "schedule:program=L2 - L - L")), None)
    assert [distance is None for distance in repeats.distances] == [True, False, True, False, True, False]


def test_a_wanted_closeness_is_surely_reached(pipe):
    recipe = calibrate(pipe, PROMPTS, closeness=0.5, prices=PRICES, **SETTING)
    assert recipe.at().closeness.low >= 0.5


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"prompts": ("a", "b", "c")}, r"3 prompt\(s\) were given .* give 4 to 16"),
        ({"prompts": ("a",) * 17}, "17 prompt"),
        ({"prompts": ("a", "b", "c", " ")}, "is empty"),
        ({"speed": 1.5, "closeness": 0.9}, "ask for one"),
        ({"speed": 0.9}, "above 1"),
        ({"speed": 1e6}, r"cannot be reached: the small model alone in 2 steps is \d"),
        ({"closeness": 2.0}, "at most 1"),
        ({"steps": 2}, "steps=2"),
        ({"minutes": -1.0}, "minutes=-1"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(pipe, whole, tmp_path, changes, complaint):
    asked = {"prompts": PROMPTS, "prices": PRICES, **SETTING, **changes}
    with pytest.raises(RecipeError, match=complaint) as refusal:
        calibrate(pipe, **asked)
    assert "\n" not in str(refusal.value)


def test_no_guidance_has_one_branch_and_no_price_of_a_conditional_one(pipe):
    recipe = calibrate(pipe, PROMPTS, **{**SETTING, "guidance": 1.0, "steps": 4})
    assert set(recipe.prices.masked) == {"fresh", "cached"}
    assert len(recipe.points) > 1


@pytest.mark.parametrize("steps", [4, 8])
def test_a_scheduler_that_is_given_no_levels_is_calibrated_at_its_own(pipe, steps):
    before = pipe.scheduler
    pipe.scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipe.transformer.follow(pipe)
    try:
        recipe = calibrate(pipe, PROMPTS, prices=PRICES, **{**SETTING, "steps": steps})
    finally:
        pipe.scheduler = before
        pipe.transformer.follow(pipe)
    assert len(recipe.points) > 1
    assert all(of.shift is of.levels is None for of in (*recipe.points, *recipe.trials))


def test_generations_go_on_while_there_is_time_and_keep_their_levels_to_the_end(whole, pipe, tmp_path):
    """By recorded times: one generation is done in no time, the next one takes all there is."""
    head, *lines = whole[1].read_text().splitlines()
    known = [line for line in lines if '"spent"' not in line]
    spent = [["first", 0.0], ["generation 0", 0.0], ["generation 1", 1e6]]
    state = tmp_path / "state"
    state.write_text("\n".join([head, *known, *(json.dumps({"spent": line}) for line in spent)]) + "\n")
    recipe = calibrate(pipe, PROMPTS, state=state, **SETTING)
    begun = {(one.policy, one.steps, one.shift, one.levels) for one in whole[0].trials}
    found = {(one.policy, one.steps, one.shift, one.levels) for one in recipe.trials}
    assert len(found - begun) > 4
    assert any(trial.shift is not None for trial in recipe.trials)
    assert {trial.kind for trial in recipe.trials} >= {"large", "fewer steps", "region mask", "whole steps"}
    assert {(p.policy, p.steps, p.shift, p.levels) for p in recipe.points} <= found


def test_a_recipe_file_is_what_was_found(whole, tmp_path):
    whole[0].save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == whole[0]


# --- processes ---


def test_a_crew_of_two_draws_what_one_does(pipe, whole):
    from hybridstitch.calibrate.board import draw
    from hybridstitch.calibrate.compare import Comparer, Comparison
    from hybridstitch.calibrate.conditions import Conditions

    conditions = Conditions(width=32, height=32, steps=6, guidance=4.0)
    comparer = Comparer(pipe=pipe, conditions=conditions, prompts=PROMPTS, seed=0, prices=PRICES)
    tasks = [(Comparison(prompt, 6, ("large", "schedule:program=L3 S3")), None) for prompt in (0, 1)]
    results = []
    for count in (1, 2):
        with LocalCrew(lambda: comparer, count) as crew:
            results.append(
                sorted((place, [replace(s) for s in scores]) for place, (scores, _) in crew.map(draw, tasks))
            )
    assert results[0] == results[1]


def test_the_small_model_alone_needs_only_itself(pipe):
    from hybridstitch.calibrate.calibrate import memory_mib
    from hybridstitch.calibrate.conditions import Conditions

    conditions = Conditions(width=32, height=32, steps=6, guidance=4.0)
    policies = (SmallOnly(), LargeOnly(), Schedule("L2 H*@0.3"))
    small, large, mask = (memory_mib(pipe, policy, 6, conditions) for policy in policies)
    assert small < large < mask
    assert large * 2**20 == 4 * sum(p.numel() for p in pipe.transformer.large.parameters())
    for policy in (Skip(3), Schedule("L2 - L - L")):
        assert memory_mib(pipe, policy, 6, conditions) == large
    assert memory_mib(pipe, Schedule("L2 R@0.3 L R@0.3 L"), 6, conditions) == pytest.approx(mask - small)
    assert memory_mib(pipe, SRDiffusion(threshold=0.005), 6, conditions) == pytest.approx(large + small)
