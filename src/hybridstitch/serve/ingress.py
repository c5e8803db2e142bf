"""What stands before the replicas on Ray: it takes a request in and holds it until a replica has answered it.

    client – Serve's proxy – Ingress – a replica – its worker

A replica that dies before its answer has begun costs a request nothing but time: it is drawn again by another one,
once. In the middle of a stream, the stream ends with an event that says so. No torch; and nothing of a request is read
here but, of several recipes, the one it asks for.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

from ray.exceptions import RayError, RayTaskError  # pyright: ignore[reportMissingImports]
from ray.serve.exceptions import BackPressureError, RayServeException  # pyright: ignore[reportMissingImports]
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import logs
from .dispatch import TRIES
from .errors import Refusal
from .gate import limit_of
from .logs import note
from .passing import Answer, left, model_of, no_http, sent, whole
from .replica import ABOUT, TAKEN
from .settings import ServeSettings
from .stations import OPENING_SECONDS

DRAWING = "/v1/images/"
LOOKING_SECONDS = 10.0  # that somebody who only looks waits for a replica
FULL = (409, 429)  # what a replica says that cannot take a request in now


class Ingress:
    """The deployment that clients reach."""

    def __init__(self, replicas: Any, settings: ServeSettings, models: Sequence[str]) -> None:
        """In the process that Serve made for it.

        Args:
            replicas: handle of the deployment of `replica.Replica`.
            settings: of the server.
            models: names of its recipes, the first for requests that name none.
        """
        logs.configure()
        self._replicas, self._settings, self._models = replicas, settings, models

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """As Serve asks for it."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self.answer(scope, receive, send)

        return app

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await no_http(scope, receive, send)
            return
        body = await whole(receive, limit_of(self._settings, scope["path"]))
        if body is None:
            return
        serves = dict(scope["headers"]).get(b"x-request-id", b"")
        answer = Answer(send, serves)
        gone = asyncio.ensure_future(left(receive))
        try:
            await self._pass_on(sent(scope, serves), body, answer, gone)
        except Refusal as refusal:
            note("no replica answered", logging.WARNING, id=serves.decode("latin-1"), code=refusal.code)
            await answer.refuse(refusal)
        finally:
            gone.cancel()

    async def _pass_on(self, scope: Scope, body: bytes, answer: Answer, gone: "asyncio.Future[None]") -> None:
        """Let a replica answer, or another one where that one dies before it has begun to.

        Raises:
            Refusal: none does.
        """
        if scope["path"].startswith(ABOUT) and scope["method"] != "POST":
            known = await self._known(scope)
            for message in known:
                await answer(message)
            if known:
                return
        model = await self._model(scope, body)
        for tries in range(TRIES):
            try:
                async with aclosing(self._said(scope, body, model, gone)) as said:
                    async for message in said:
                        if tries and message.get("status") in FULL:
                            raise _died("another one cannot draw it now", dict(message["headers"]).get(b"retry-after"))
                        await answer(message)
                return
            except RayTaskError as error:
                raise Refusal(500, "something broke; the log of a replica says what", "error") from error
            except RayError as error:
                note("a replica was lost", logging.ERROR, how=type(error).__name__, begun=answer.begun)
                if answer.begun:
                    raise _died("ask again") from error
        raise _died("so did another one")

    async def _said(
        self, scope: Scope, body: bytes, model: str | None, gone: "asyncio.Future[None]"
    ) -> AsyncGenerator[Message, None]:
        """What one replica answers, until the client leaves.

        Raises:
            Refusal: none takes the request in.
            RayError: the replica died, or cannot be reached.
        """
        draws = scope["method"] == "POST"
        patience: float | None = self._settings.max_wait_seconds if draws else LOOKING_SECONDS
        handle = self._replicas.options(method_name="ask", stream=True, multiplexed_model_id=model or "")
        response, coming = handle.remote(scope, body, model), None
        try:
            while True:
                coming = asyncio.ensure_future(_next(response))
                await asyncio.wait({coming, gone}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done() and gone.done():
                    return
                if not coming.done():
                    said = f"no replica could take the request in within {patience:g} s; come again"
                    raise Refusal(503, said, "opening", retry_after=OPENING_SECONDS)
                message = coming.result()
                if message is None:
                    return
                patience = None
                if message["type"] != TAKEN:
                    yield message
        except BackPressureError as error:
            said = f"{self._settings.max_waiting} requests wait for a replica; come again"
            raise Refusal(429, said, "queue_full", retry_after=self._settings.max_wait_seconds) from error
        except RayServeException as error:
            raise Refusal(503, "no replica is left", "dead", retry_after=OPENING_SECONDS) from error
        finally:
            if coming is not None and not (coming.done() and _ended(coming)):
                coming.cancel()
                coming.add_done_callback(_ended)
                response.cancel()

    async def _known(self, scope: Scope) -> list[Message]:
        """What the replica that took a request in answers when it is asked about it; nothing where none did."""
        with suppress(RayError, RayServeException, TimeoutError):
            asked = self._replicas.broadcast("look", scope)
            answers = await asked.results_async(timeout_s=LOOKING_SECONDS, return_exceptions=True)
            return next((said for said in answers if isinstance(said, list) and said), [])
        return []

    async def _model(self, scope: Scope, body: bytes) -> str | None:
        """Which of several recipes is to draw; None where it does not matter, or a replica is to refuse the name."""
        if len(self._models) == 1 or scope["method"] != "POST" or not scope["path"].startswith(DRAWING):
            return None
        named = await model_of(scope, body) or self._models[0]
        return named if named in self._models else None


def _died(then: str, retry_after: bytes | None = None) -> Refusal:
    seconds = float(retry_after or OPENING_SECONDS)
    return Refusal(503, f"the replica that had this request died; {then}", "died", retry_after=seconds)


async def _next(response: Any) -> Message | None:
    """The next message of a replica; None after the last."""
    with suppress(StopAsyncIteration):
        return await anext(response)
    return None


def _ended(coming: "asyncio.Future[Message | None]") -> bool:
    """Whether a replica says nothing more."""
    return coming.cancelled() or coming.exception() is not None or coming.result() is None
