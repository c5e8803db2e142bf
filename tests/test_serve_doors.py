"""The application in this process, with a worker that holds no models: what is answered when things go wrong."""

import asyncio
import logging
from dataclasses import replace

import httpx
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from hybridstitch.recipe import Recipe
from hybridstitch.report.layers import Layer
from hybridstitch.serve.app import Server
from hybridstitch.serve.dispatch import Dispatch
from hybridstitch.serve.fields import GenerationRequest
from hybridstitch.serve.intake import Intake
from hybridstitch.serve.meters import Meters
from hybridstitch.serve.settings import ServeSettings
from serve_flat import ABOUT, FlatOpener
from serving import SIZE, recipe

TOKENIZER = Tokenizer(WordLevel({"a": 0}, unk_token="a")).to_str()


def settings(**changes):
    return ServeSettings(_env_file=None, **changes)


def client(server):
    app = httpx.ASGITransport(server.app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=app, base_url="http://127.0.0.1")


@pytest.mark.parametrize("how", ["draining", "dead"])
def test_who_waits_for_the_pair_hears_at_once_that_it_will_not_be_opened(how):
    async def asked():
        server = Server(FlatOpener(), settings())
        async with client(server) as here:
            asking = asyncio.ensure_future(here.post("/v1/images/generations", json={"prompt": "a dog"}))
            while not server.dispatch.early:
                await asyncio.sleep(0.01)
            assert not asking.done()
            if how == "draining":
                await server.dispatch.drain(0)
            else:
                server.dispatch.stations.refused = "no such pair"
                server.dispatch.go_on()
            return await asyncio.wait_for(asking, 2)

    answer = asyncio.run(asked())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, how)


def test_who_waits_for_the_pair_can_be_asked_about_and_stopped_by_id():
    async def asked():
        server = Server(FlatOpener(), settings())
        async with client(server) as here:
            ids = ["the-first-one", "the-second-one"]
            asking = []
            for key in ids:
                headers, body = {"x-client-request-id": key}, {"prompt": "a dog"}
                post = here.post("/v1/images/generations", json=body, headers=headers)
                asking.append(asyncio.ensure_future(post))
                while key not in server.dispatch.early:
                    await asyncio.sleep(0.01)
            again = await here.post(
                "/v1/images/generations", json={"prompt": "a cat"}, headers={"x-client-request-id": ids[0]}
            )
            found = [(await here.get(f"/v1/requests/{key}")).json() for key in ids]
            stopped = (await here.delete(f"/v1/requests/{ids[0]}")).json()
            answer = await asyncio.wait_for(asking[0], 2)
            left = (await here.get(f"/v1/requests/{ids[1]}")).json()
            asking[1].cancel()
            await asyncio.wait(asking)
            return again, found, stopped, answer, left, (await here.get(f"/v1/requests/{ids[0]}")).status_code

    again, found, stopped, answer, left, later = asyncio.run(asked())
    assert (again.status_code, again.json()["error"]["code"]) == (409, "id_in_use")
    assert [(one["state"], one["place"], one["steps_drawn"]) for one in found] == [("waiting", 1, 0), ("waiting", 2, 0)]
    assert all(0 < one["predicted_wait_seconds"] <= 30 for one in found)
    assert stopped["state"] == "stopped"
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "stopped")
    assert (left["state"], left["place"], later) == ("waiting", 1, 404)


def test_the_timeout_counts_from_the_requests_coming():
    async def asked():
        server = Server(FlatOpener(), settings())
        async with client(server) as here:
            body = {"prompt": "a dog", "timeout": 0.3}
            asking = asyncio.ensure_future(here.post("/v1/images/generations", json=body))
            await asyncio.sleep(0.2)
            server.dispatch.opened(replace(ABOUT, tokenizer=TOKENIZER))
            answer = await asyncio.wait_for(asking, 5)
            (ticket,) = server.dispatch.tickets.values() or (None,)
            return answer, ticket

    answer, ticket = asyncio.run(asked())
    if ticket is None:
        assert answer.status_code in (422, 429)  # .1 s are not enough
    else:
        assert ticket.deadline - ticket.created < 0.15
        assert answer.status_code == 408


def test_an_error_of_the_servers_own_is_answered_with_the_id_to_look_for():
    async def asked():
        server = Server(FlatOpener(), settings())

        @server.app.get("/broken")
        async def broken():
            raise ZeroDivisionError("as it was told to")

        async with client(server) as here:
            return await here.get("/broken", headers={"x-client-request-id": "my-own-id-1"})

    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    answer = asyncio.run(asked())
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "my-own-id-1")
    assert answer.json()["error"]["code"] == "error"
    assert "ZeroDivisionError" not in answer.text


def test_load_chooses_among_points_of_as_many_steps_as_are_drawn(tmp_path):
    async def taken():
        found = Recipe.load(recipe(tmp_path / "recipe.json"))
        limits = settings(target_seconds=5, floor=0.5, max_steps=4)
        dispatch = Dispatch(FlatOpener(), (None,), limits, Meters(), found)
        dispatch.opened(replace(ABOUT, tokenizer=TOKENIZER, size=SIZE))
        intake = Intake(dispatch, limits, Layer(), found, found.at(speed=5.0))
        return intake.take(GenerationRequest(prompt="a"), "key", asyncio.get_running_loop().time())

    rungs = asyncio.run(taken()).rungs
    assert [rung.layer.steps for rung in rungs] == [4, 2]
