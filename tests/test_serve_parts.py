"""Parts of the server by themselves: what requests mean, what they will take, which point a load is served at."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from time import monotonic

import pytest
from PIL import Image

from hybridstitch.measure.price import Prices
from hybridstitch.policies.methods import LargeOnly, SmallOnly
from hybridstitch.policies.parse import parse
from hybridstitch.recipe import Recipe
from hybridstitch.report.layers import Layer
from hybridstitch.serve.errors import Refusal
from hybridstitch.serve.forecast import Forecast, Priced
from hybridstitch.serve.orders import Failed, Order, Partial
from hybridstitch.serve.pace import choose
from hybridstitch.serve.points import Points
from hybridstitch.serve.source import edit_of
from hybridstitch.serve.ticket import Ticket
from serving import SIZE, recipe

PRICES = Prices(call=0.1, step=0.0, large=0.1, small=0.02)
ORDER = Order(
    id="one", prompt="a dog", negative="", policy="large", steps=10, shift=None, levels=None, guidance=4.0, seed=0,
    size=(64, 64),
)  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return Recipe.load(recipe(tmp_path_factory.mktemp("recipe") / "recipe.json"))


def points(found, told=None, **options):
    point = None if found is None else found.at(**options)
    return Points.of(told or Layer(), "hybrid-stitch", (128, 128), found, point, 0.85)


def meant(points, asked=None, *, policy=None, speed=None, closeness=None, quality="auto"):
    return points.meant(asked or Layer(), policy=policy, speed=speed, closeness=closeness, quality=quality)


def test_serving_needs_no_torch():
    code = "import sys, hybridstitch.serve.run, hybridstitch.cli.serve_studio; print('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert run.stdout.strip() == "False", run.stderr


# --- what requests mean ---


@pytest.mark.parametrize(
    ("quality", "steps", "policy"),
    [
        ("max", 6, "large"),
        ("xhigh", 6, "large"),
        ("high", 6, "schedule:program=L2 H2@0.3 S2"),
        ("low", 4, "schedule:program=S2 L R@0.3"),
    ],
)
def test_qualities_are_points_of_the_recipe(found, quality, steps, policy):
    layer = meant(points(found), quality=quality).layer
    assert (str(layer.policy), layer.steps) == (policy, steps)
    assert layer.size == SIZE


def test_without_a_recipe_qualities_are_the_models_alone():
    here = points(None)
    assert meant(here, quality="low").layer.policy == SmallOnly()
    assert meant(here, quality="high").layer.policy == meant(here, quality="max").layer.policy == LargeOnly()
    assert meant(here).layer == meant(here, quality="medium").layer
    assert (meant(here).layer.steps, meant(here).layer.size) == (50, (128, 128))
    with pytest.raises(Refusal, match="this server has no recipe"):
        meant(here, speed=2.0)


def test_a_policy_leaves_the_points_steps_and_levels(found):
    here = points(found, speed=3.0)
    assert (meant(here).layer.steps, meant(here).layer.shift) == (4, 3.0)
    layer = meant(here, policy="small").layer
    assert (layer.steps, layer.shift, layer.levels) == (6, None, None)
    few = meant(here, policy="mini-few-4").layer
    assert (few.steps, few.shift) == (7, 5.0)


def test_other_steps_than_measured_are_noted(found):
    asked = meant(points(found), Layer(size=(16, 16)), closeness=0.99)
    assert "measured with another size" in asked.notes[0]
    assert meant(points(found), closeness=0.99).notes == ()


@pytest.mark.parametrize(
    "asked", [{"speed": 2.0, "closeness": 0.9}, {"speed": 2.0, "quality": "low"}, {"policy": "large", "closeness": 0.9}]
)
def test_what_decides_the_same_excludes_each_other(found, asked):
    with pytest.raises(Refusal, match="each determines the others") as refused:
        meant(points(found), **asked)
    assert refused.value.status == 422


def test_the_servers_own_options_stand_over_its_recipe(found):
    here = points(found, Layer(steps=8, policy=parse("small")))
    assert (meant(here).layer.steps, meant(here).layer.policy, meant(here).free) == (8, SmallOnly(), False)
    assert meant(points(found)).free
    assert not meant(points(found), closeness=0.9).free


# --- what they will take ---


def test_a_forecast_is_the_prices_until_it_has_learnt():
    forecast = Forecast(Priced(PRICES, 64 * 64), None)
    assert forecast.seconds(ORDER) == pytest.approx(1.1)
    assert forecast.seconds(replace(ORDER, count=2, size=(128, 64))) == pytest.approx(4.4)
    small = replace(ORDER, policy="small")
    assert forecast.seconds(small) == pytest.approx(0.3)
    forecast.learn(ORDER, 2.2)
    assert forecast.seconds(ORDER) == pytest.approx(2.2)
    assert forecast.seconds(small) == pytest.approx(0.6)  # nothing else is known of it
    forecast.learn(small, 0.3)
    assert forecast.seconds(small) == pytest.approx(0.3)


def test_an_adaptive_policy_is_priced_as_the_large_model_until_one_was_drawn():
    forecast = Forecast(Priced(PRICES, 64 * 64), None)
    adaptive = replace(ORDER, policy="hybrid-stitch")
    assert forecast.seconds(adaptive) == forecast.seconds(ORDER)
    forecast.learn(adaptive, 0.5)
    assert forecast.seconds(adaptive) == pytest.approx(0.5)


def test_a_recipes_prices_are_scaled_to_this_machine(found):
    slow = Prices(call=0.0, step=0.0, large=0.03, small=0.012)  # three times those of the recipe
    forecast = Forecast(Priced(slow, SIZE[0] * SIZE[1]), found)
    order = replace(ORDER, policy="large", steps=6, size=SIZE)
    assert forecast.seconds(order) == pytest.approx(3 * found.prices.seconds(LargeOnly(), 6))


# --- load decides ---


def ticket(rungs, predicted=1.0):
    orders = tuple(replace(ORDER, policy=policy) for policy in rungs)
    order = orders[-1] if orders else ORDER
    return Ticket(order=order, deadline=monotonic() + 60, predicted=predicted, rungs=orders)


@pytest.mark.parametrize(("count", "policy"), [(1, "large"), (2, "S5 L5"), (3, "small"), (9, "small")])
def test_the_closest_point_that_serves_all_in_time_is_chosen(count, policy):
    waiting = [ticket(("large", "S5 L5", "small")) for _ in range(count)]
    choose(waiting, [0.0], Forecast(Priced(PRICES, 64 * 64), None), 1.5)  # 1.1, .7 or .3 s each
    assert {each.order.policy for each in waiting} == {policy}


def test_requests_that_settled_their_speed_keep_it():
    settled, free = ticket(()), ticket(("large", "small"))
    choose([settled, free], [0.0], Forecast(Priced(PRICES, 64 * 64), None), 1.5)
    assert settled.order == ORDER
    assert free.order.policy == "small"


def test_no_request_is_drawn_so_closely_that_a_timeout_passes():
    forecast = Forecast(Priced(PRICES, 64 * 64), None)
    short = ticket(("large", "S5 L5", "small"))
    short.deadline = monotonic() + 0.5
    choose([short], [0.0], forecast, 30.0)
    assert short.order.policy == "small"
    free, settled = ticket(("large", "S5 L5", "small")), ticket(())
    settled.deadline = monotonic() + 1.5
    choose([free, settled], [0.0], forecast, 30.0)
    assert free.order.policy == "small"


# --- tickets and pictures ---


def test_a_ticket_is_answered_once_and_partials_are_told_once():
    async def told():
        one = ticket(())
        for index in (0, 1, 0, 1, 2):  # a second worker begins anew
            one.partial(Partial("one", index, b""))
        one.fail(Failed("one", "stopped", ""))
        one.fail(Failed("one", "error", ""))
        one.partial(Partial("one", 3, b""))
        return one, [one.events.get_nowait() for _ in range(one.events.qsize())]

    one, said = asyncio.run(told())
    assert [getattr(event, "index", None) for event in said] == [0, 1, 2, None]
    assert (one.state, one.failure.reason) == ("stopped", "stopped")


def test_transparent_is_where_to_draw():
    image = Image.new("RGB", (4, 2), (9, 8, 7))
    mask = Image.new("RGBA", (4, 2), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (2, 0, 4, 2))
    edit = edit_of(image, mask, (4, 2), None)
    assert edit.mask == bytes([0, 0, 255, 255] * 2)
    assert (edit.picture, edit.strength) == (bytes([9, 8, 7] * 8), 1.0)
    assert edit_of(image, None, (8, 4), None).mask is None
    assert edit_of(image, None, (4, 2), 0.3).strength == 0.3
