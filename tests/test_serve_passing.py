"""Passing a request on to another process, by itself; and a server that is one of several by name."""

import asyncio
import json

import httpx
import pytest

from hybridstitch.serve.app import Server
from hybridstitch.serve.errors import Refusal
from hybridstitch.serve.passing import Answer, left, model_of, no_http, sent, whole
from hybridstitch.serve.settings import ServeSettings
from serve_flat import FlatOpener

LIMIT = 10


def receiving(*parts, leaves=False):
    """`receive` of ASGI: a body in parts, then the client leaves, or stays for ever."""
    said = [
        {"type": "http.request", "body": part, "more_body": leaves or k < len(parts) - 1}
        for k, part in enumerate(parts)
    ]

    async def receive():
        if said:
            return said.pop(0)
        if not leaves:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return receive


@pytest.mark.parametrize(
    ("parts", "leaves", "body"),
    [
        ((b"12345", b"67890"), False, b"1234567890"),
        ((b"",), False, b""),
        (
            (b"12345", b"678901", b"2345"),
            False,
            b"12345678901",
        ),  # a byte more says: too large
        ((b"12345",), True, None),
        ((b"x" * 30, b"y" * 30, b"z" * 30), False, b"x" * 11),  # no more than that is waited for
    ],
)
def test_a_body_is_read_as_far_as_the_server_takes_it(parts, leaves, body):
    assert asyncio.run(whole(receiving(*parts, leaves=leaves), LIMIT)) == body


def test_a_client_that_leaves_is_noticed():
    asyncio.run(asyncio.wait_for(left(receiving(b"", leaves=True)), 1))


def answered(*said, serves=b"its-own-id", **refusal):
    """What reaches a client, and whether it was broken off."""

    async def told():
        found = []

        async def send(message):
            found.append(message)

        answer, broken = Answer(send, serves), False
        for message in said:
            await answer(message)
        if refusal:
            try:
                await answer.refuse(Refusal(503, "the replica died", "died", retry_after=3))
            except Refusal:
                broken = True
        return found, broken

    return asyncio.run(told())


def start(kind=b"application/json", status=200):
    headers = [(b"content-type", kind), (b"x-request-id", b"its-own-id")]
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data, more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


def test_an_answer_begins_with_its_body_and_leaves_the_proxys_id_to_the_proxy():
    assert answered(start()) == ([], False)
    found, _ = answered(start(), body(b"{}"))
    assert found == [{**start(), "headers": [(b"content-type", b"application/json")]}, body(b"{}")]
    found, _ = answered(start(), body(b"{}"), serves=b"another")
    assert found[0] == start()


def test_a_refusal_is_whole_ends_a_stream_or_breaks_off():
    found, broken = answered(start(), refused=True)  # another replica's answer, of which nothing was sent
    assert (found[0]["status"], dict(found[0]["headers"])[b"retry-after"], broken) == (503, b"3", False)
    assert json.loads(found[1]["body"])["error"]["code"] == "died"
    found, broken = answered(start(b"text/event-stream; charset=utf-8"), body(b": drawing\n\n", True), refused=True)
    kind, data, *_ = found[-1]["body"].decode().splitlines()
    assert (kind, json.loads(data.removeprefix("data: "))["error"]["code"], broken) == ("event: error", "died", False)
    assert not found[-1].get("more_body", False)
    assert answered(start(), body(b"{", True), refused=True)[1]


SCOPE = {
    "type": "http", "method": "POST", "path": "/v1/images/generations", "query_string": b"",
    "headers": [(b"content-type", b"application/json")], "app": object(),
}  # fmt: skip


def test_the_proxys_id_is_a_requests_where_the_client_has_none():
    assert sent(SCOPE, b"0123456789")["headers"][-1] == (b"x-client-request-id", b"0123456789")
    assert "app" not in sent(SCOPE, b"0123456789")
    own = {**SCOPE, "headers": [(b"x-client-request-id", b"my-own-id")]}
    assert sent(own, b"0123456789")["headers"] == own["headers"]
    assert sent(SCOPE, b"no id")["headers"] == SCOPE["headers"]


def form(**fields):
    request = httpx.Request("POST", "http://localhost", data=fields, files={"image": b"123"})
    return request.read(), request.headers["content-type"].encode()


@pytest.mark.parametrize(
    ("data", "kind", "model"),
    [
        (b'{"model": "fast"}', b"application/json", "fast"),
        (b'{"prompt": "a dog"}', b"application/json", None),
        (b'{"model": 7}', b"application/json", None),
        (b"[1]", b"application/json", None),
        (b"{", b"application/json", None),
        (*form(model="fast", prompt="a dog"), "fast"),
        (*form(prompt="a dog"), None),
        (b"no form", b"multipart/form-data; boundary=x", None),
        (b"no form", b"multipart/form-data", None),
    ],
    ids=("named", "unnamed", "a number", "no object", "cut", "a form", "an unnamed form", "no form", "no boundary"),
)
def test_the_model_is_read_of_bodies_that_have_one(data, kind, model):
    assert asyncio.run(model_of({**SCOPE, "headers": [(b"content-type", kind)]}, data)) == model


def test_the_applications_life_is_its_servers():
    async def told(kind, *received):
        said, found = list(received), []

        async def receive():
            return said.pop(0)

        async def send(message):
            found.append(message["type"])

        await no_http({"type": kind}, receive, send)
        return found

    life = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    assert asyncio.run(told("lifespan", *life)) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert asyncio.run(told("websocket", {"type": "websocket.connect"})) == ["websocket.close"]


def test_one_of_several_recipes_lists_them_all_and_refuses_names_that_nobody_has():
    async def asked():
        server = Server(FlatOpener(), ServeSettings(_env_file=None), devices=("one",), names=("good", "fast"))
        server.dispatch.stations.start()
        await asyncio.wait_for(server.dispatch.once.wait(), 60)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app), base_url="http://localhost") as client:
            models = await client.get("/v1/models")
            refused = await client.post("/v1/images/generations", json={"prompt": "a dog", "model": "fsat"})
        await server.dispatch.stations.close()
        return models.json()["data"], refused

    models, refused = asyncio.run(asked())
    assert [model["id"] for model in models] == ["good", "fast"]
    assert ["hybridstitch" in model for model in models] == [True, False]
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert refused.json()["error"]["message"] == "there is no model 'fsat'; did you mean 'fast'?"
