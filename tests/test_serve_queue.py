"""The queue under whatever order of asking, stopping and killing: every request is answered, and once."""

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from time import monotonic

import pytest

from hybridstitch.serve.dispatch import Dispatch
from hybridstitch.serve.errors import Refusal
from hybridstitch.serve.meters import Meters
from hybridstitch.serve.orders import Failed, Finished, Order
from hybridstitch.serve.settings import ServeSettings
from hybridstitch.serve.stations import Station
from hybridstitch.serve.ticket import OVER, Ticket
from serve_flat import FlatOpener

ORDER = Order(
    id="",
    prompt="a dog",
    negative="",
    policy="large",
    steps=3,
    shift=None,
    levels=None,
    guidance=4.0,
    size=(32, 32),
    seed=0,
)


def ticket(name, timeout=60.0, **changes):
    order = replace(ORDER, id=name, **changes)
    return Ticket(order=order, deadline=monotonic() + timeout, predicted=order.steps * order.count * 0.01)


def queue(devices=("one", "two"), opener=FlatOpener(), **changes):  # noqa: B008
    settings = ServeSettings(_env_file=None, max_wait_seconds=600, stuck_seconds=1, **changes)
    return Dispatch(opener, devices, settings, Meters())


async def until(true, seconds=60.0):
    end = monotonic() + seconds
    while not true():
        assert monotonic() < end
        await asyncio.sleep(0.005)


async def scenario(seed):
    """Fifty random things that clients and fate may do, and what became of it."""
    chance, here = random.Random(seed), queue()
    here.stations.start()
    await until(lambda: here.stations.ready == 2)
    tickets, kills = [], 0
    for place in range(50):
        match chance.choices(("ask", "stop", "kill", "wait"), (6, 2, 0.5, 2))[0]:
            case "ask":
                prompt = chance.choices(("a dog", "fails"), (9, 1))[0]
                timeout = chance.choice((60, 60, 60, 0.15))
                made = ticket(f"t{place}", timeout, steps=chance.randint(1, 6), seed=place, prompt=prompt)
                with suppress(Refusal):  # it could not be drawn in time
                    here.admit(made)
                    tickets.append(made)
            case "stop" if tickets:
                here.give_up(chance.choice(tickets), "stopped", "")
            case "kill" if kills < 3:
                kills += 1
                member = chance.choice(list(here.stations)).member
                member.kill()
            case _:
                await asyncio.sleep(chance.random() * 0.05)
    await until(lambda: all(made.over for made in tickets))
    await until(lambda: all(station.state == "idle" for station in here.stations))
    await here.stations.close()
    return tickets


@pytest.mark.parametrize("seed", range(3))
def test_every_request_is_answered_once(seed):
    tickets = asyncio.run(scenario(seed))
    assert len(tickets) > 15
    for made in tickets:
        said = [made.events.get_nowait() for _ in range(made.events.qsize())]
        assert [isinstance(event, Finished | Failed) for event in said] == [True]
        assert made.state in OVER
        if made.state == "done":
            assert [picture.seed for picture in made.pictures] == [made.order.seed]  # its own, alone or in company
        else:
            fails = "error" if made.order.prompt == "fails" else None
            assert made.failure.reason in ("stopped", "deadline", "died", fails)
    assert sum(made.state == "done" for made in tickets) > 5


def test_alike_requests_are_drawn_in_one_call_and_an_error_costs_its_own_alone():
    async def drawn():
        here = queue(("one",))
        here.stations.start()
        await until(lambda: here.stations.ready == 1)
        first = ticket("first", steps=20)
        alike = [ticket(f"alike{k}", seed=k, prompt="fails" if k == 1 else "a dog") for k in range(3)]
        other = ticket("other", steps=4)
        for made in (first, *alike[:2], other, alike[2]):
            here.admit(made)
        assert [here.place(made) for made in (first, alike[0], other, alike[2])] == [0, 1, 3, 4]
        await until(lambda: alike[0].over)
        assert alike[1].over or alike[1].begun == pytest.approx(alike[0].begun, abs=0.05)
        await until(lambda: all(made.over for made in (first, *alike, other)))
        await here.stations.close()
        return first, alike, other

    first, alike, other = asyncio.run(drawn())
    assert [made.state for made in (first, *alike, other)] == ["done", "done", "failed", "done", "done"]
    assert alike[1].failure.reason == "error"


@pytest.mark.parametrize(
    ("pair", "message"), [("refused", "no such pair"), ("broken", "cannot be opened: OSError: no such file")]
)
def test_a_pair_that_cannot_be_opened_ends_the_server_with_the_reason(pair, message):
    async def refused():
        here = queue((pair,))
        here.stations.start()
        await until(lambda: here.stations.refused is not None)
        await here.stations.close()
        return here

    here = asyncio.run(refused())
    assert message in here.stations.refused
    assert not here.stations.alive
    assert here.about is None


def test_a_full_queue_and_a_draining_one_refuse():
    async def refused():
        here = queue(("one",), max_waiting=1)
        here.stations.start()
        await until(lambda: here.stations.ready == 1)
        here.admit(ticket("first", steps=30))
        here.admit(ticket("second", steps=30))
        with pytest.raises(Refusal) as full:
            here.admit(ticket("third"))
        draining = asyncio.ensure_future(here.drain(0.05))
        await asyncio.sleep(0.01)
        with pytest.raises(Refusal) as ending:
            here.admit(ticket("fourth"))
        await draining
        left = [(made.state, made.failure.reason) for made in here.tickets.values()]
        await here.stations.close()
        return full.value, ending.value, left

    full, ending, left = asyncio.run(refused())
    assert (full.status, full.code) == (429, "queue_full")
    assert 0 < full.retry_after < 1
    assert (ending.status, ending.code) == (503, "draining")
    assert left == [("failed", "draining")] * 2


def test_a_request_that_kills_its_worker_costs_those_drawn_with_it_nothing():
    async def drawn():
        here = queue(("one",))
        here.stations.start()
        await until(lambda: here.stations.ready == 1)
        made = [ticket("first", steps=20), ticket("deadly", prompt="kills"), ticket("other", seed=1)]
        for each in made:
            here.admit(each)
        await until(lambda: all(each.over for each in made))
        await here.stations.close()
        return made

    first, deadly, other = asyncio.run(drawn())
    assert (first.state, other.state, deadly.failure.reason) == ("done", "done", "died")
    assert (deadly.tries, other.tries) == (2, 1)  # drawn with it once, and then by itself


def test_what_is_drawn_in_one_call_takes_as_long_as_all_of_it():
    made = [ticket(f"t{k}", steps=1000) for k in range(4)]  # of 10 s each
    for each in made:
        each.begun = monotonic() - 10
    assert Station("one", open=True, tickets=tuple(made)).remaining == pytest.approx(30, abs=0.1)
    assert Station("one", open=True, tickets=tuple(made[:1])).remaining == pytest.approx(0.5, abs=0.1)  # late
    assert Station("one", open=True).remaining == 0


def test_a_device_that_cannot_open_the_pair_is_left_out_while_there_is_another():
    async def drawn():
        here = queue(("broken", "one"))
        here.stations.start()
        made = ticket("first")
        await until(lambda: here.about is not None and any(station.given_up for station in here.stations))
        here.admit(made)
        await until(lambda: made.over and not any(station.tickets for station in here.stations))
        states = [station.state for station in here.stations], here.stations.alive
        await here.stations.close()
        return made.state, *states

    assert asyncio.run(drawn()) == ("done", ["given up", "idle"], True)


def test_one_opening_that_fails_after_two_deaths_is_not_the_third_of_its_kind(tmp_path):
    async def drawn():
        here = queue(("broken the third time",), FlatOpener(tmp_path / "openings"))
        here.stations.start()
        await until(lambda: here.stations.ready == 1)
        deadly, other = ticket("deadly", prompt="kills"), ticket("other", steps=5)
        here.admit(deadly)
        await until(lambda: deadly.over)
        here.admit(other)
        await until(lambda: other.over)
        await here.stations.close()
        return deadly.failure.reason, other.state

    assert asyncio.run(drawn()) == ("died", "done")
    assert (tmp_path / "openings").read_text().count("\n") == 4


@pytest.mark.parametrize(("reason", "again"), [("device", True), ("died", True), ("request", False), ("memory", False)])
def test_an_id_may_come_again_where_its_client_was_told_to_try_again(reason, again):
    async def asked():
        here = queue(("one",))
        here.tickets["same"] = ticket("same")
        here.tickets["same"].fail(Failed("same", reason, ""))
        try:
            here.admit(ticket("same"))
        except Refusal as refusal:
            return refusal.code
        return here.tickets["same"].state

    assert asyncio.run(asked()) == ("waiting" if again else "id_in_use")
