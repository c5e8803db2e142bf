"""The ingress on Ray, before replicas that die, are full, or say nothing: what reaches the client."""

import asyncio
import json

import pytest

pytest.importorskip("ray", reason="ray is not installed")
pytest.importorskip("grpc", reason="ray[serve] is not installed")

from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException

from hybridstitch.serve.errors import Refusal
from hybridstitch.serve.ingress import Ingress
from hybridstitch.serve.passing import messages_of
from hybridstitch.serve.replica import TAKEN
from hybridstitch.serve.settings import ServeSettings

FULL = messages_of(Refusal(429, "too many wait", "queue_full", retry_after=7))
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
STREAM = {**START, "headers": [(b"content-type", b"text/event-stream")]}
DRAWN = {"type": "http.response.body", "body": b"a picture"}
BEAT = {"type": "http.response.body", "body": b": drawing\n\n", "more_body": True}
WAITS = object()  # and says nothing more
DIED, AWAY = ActorDiedError(), ActorUnavailableError("away", None)
BROKEN = RayTaskError("ask", "a traceback", ValueError("a bug"))


class Replicas:
    """A handle of replicas that answer in turn, each with what it is told to say: messages, an error, or nothing."""

    def __init__(self, *said):
        self.said, self.asked, self.cancelled = list(said), [], 0

    def options(self, **options):
        self.asked.append(options["multiplexed_model_id"])
        return self

    def remote(self, scope, body, model):
        return Response(self, self.said.pop(0))

    def broadcast(self, method, scope):
        raise RayServeException("no replica")


class Response:
    """What one of them says."""

    def __init__(self, replicas, said):
        self.replicas, self.said = replicas, [{"type": TAKEN}, *said] if said[:1] != [WAITS] else list(said)

    async def __anext__(self):
        if not self.said:
            raise StopAsyncIteration
        said = self.said.pop(0)
        if said is WAITS:
            await asyncio.Event().wait()
        if isinstance(said, Exception):
            raise said
        return said

    def cancel(self):
        self.replicas.cancelled += 1


def answered(*said, method="POST", path="/v1/images/generations", body=b"{}", models=("one",), leaves=False):
    """Messages to a client, and the replicas that it asked."""

    async def told():
        found, replicas = [], Replicas(*said)
        settings = ServeSettings(_env_file=None, max_wait_seconds=0.1)
        received = [{"type": "http.request", "body": body}, *([{"type": "http.disconnect"}] if leaves else ())]

        async def receive():
            if not received:
                await asyncio.Event().wait()
            return received.pop(0)

        async def send(message):
            found.append(message)

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b""}
        await Ingress(replicas, settings, models).answer(scope, receive, send)
        return found, replicas

    return asyncio.run(asyncio.wait_for(told(), 10))


def refused(found):
    """Status, code and seconds of a refusal."""
    start, body = found
    after = dict(start["headers"]).get(b"retry-after")
    return start["status"], json.loads(body["body"])["error"]["code"], after and int(after)


def test_an_answer_is_passed_on():
    assert answered([START, DRAWN])[0] == [START, DRAWN]


@pytest.mark.parametrize("error", [DIED, AWAY])
@pytest.mark.parametrize("before", [[], [START]], ids=["nothing", "a beginning without a body"])
def test_what_a_lost_replica_had_not_begun_to_answer_is_asked_of_another(error, before):
    found, replicas = answered([*before, error], [START, DRAWN])
    assert (found, len(replicas.asked)) == ([START, DRAWN], 2)


def test_two_lost_replicas_are_enough():
    found, replicas = answered([DIED], [DIED], [START, DRAWN])
    assert (refused(found), len(replicas.asked)) == ((503, "died", 30), 2)


def test_another_one_that_is_full_is_a_replica_that_died():
    assert refused(answered([DIED], FULL)[0]) == (503, "died", 7)
    assert refused(answered(FULL)[0]) == (429, "queue_full", 7)


def test_a_stream_that_has_begun_ends_with_an_error():
    found, replicas = answered([STREAM, BEAT, DIED], [START, DRAWN])
    assert (found[:2], len(replicas.asked)) == ([STREAM, BEAT], 1)
    kind, data = found[2]["body"].decode().splitlines()[:2]
    assert (kind, json.loads(data.removeprefix("data: "))["error"]["code"]) == ("event: error", "died")
    assert not found[2].get("more_body", False)


def test_what_has_begun_and_is_no_stream_is_broken_off():
    with pytest.raises(Refusal, match="the replica that had this request died"):
        answered([START, {**DRAWN, "more_body": True}, DIED])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BackPressureError(9, 9), (429, "queue_full", 1)),
        (RayServeException("the deployment is gone"), (503, "dead", 30)),
        (BROKEN, (500, "error", None)),
    ],
    ids=["too many", "none is left", "a bug of ours"],
)
def test_what_serve_refuses_is_refused_as_the_server_does(error, expected):
    assert refused(answered([error])[0]) == expected


def test_nobody_waits_for_ever_for_a_replica():
    found, replicas = answered([WAITS])
    assert (refused(found), replicas.cancelled) == ((503, "opening", 30), 1)


def test_a_client_that_leaves_cancels_its_request():
    found, replicas = answered([WAITS], leaves=True)
    assert (found, replicas.cancelled) == ([], 1)


def test_a_request_goes_on_to_the_replica_of_its_model():
    def asked(body, **more):
        return answered([START, DRAWN], body=body, models=("good", "fast"), **more)[1].asked

    assert asked(b'{"model": "fast"}') == ["fast"]
    assert asked(b"{}") == ["good"]
    assert asked(b'{"model": "nobody"}') == [""]  # any replica refuses it
    assert asked(b"", method="GET", path="/v1/models") == [""]
    assert asked(b"", method="GET", path="/v1/requests/some-id") == [""]
    assert answered([START, DRAWN], body=b'{"model": "any"}')[1].asked == [""]
