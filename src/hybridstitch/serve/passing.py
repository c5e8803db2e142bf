"""Pieces of ASGI that a request is passed on with: what another process can read of it, and its way back."""

from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from .answers import event
from .errors import Refusal, refuse
from .gate import CLIENT_ID, DRAINED

PLAIN = (  # of a scope, what another process can read
    *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path"),
    *("headers", "client", "server"),
)


class Answer:
    """An answer on its way to a client; nothing of it is sent before there is some of its body.

    Attributes:
        begun: whether anything was sent.
    """

    def __init__(self, send: Send, serves: bytes) -> None:
        """Nothing yet.

        Args:
            send: see ASGI.
            serves: the proxy's own id, which it adds by itself.
        """
        self.begun = False
        self._send, self._serves = send, serves
        self._start: Message = {}

    async def __call__(self, message: Message) -> None:
        """As `send` of ASGI."""
        if message["type"] == "http.response.start":
            headers = [tuple(pair) for pair in message["headers"]]
            self._start = {**message, "headers": [pair for pair in headers if pair != (b"x-request-id", self._serves)]}
            return
        if not self.begun:
            self.begun = True
            await self._send(self._start)
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """End it: whole, or as a stream that has begun.

        Raises:
            Refusal: it has begun, and is no stream.
        """
        if not self.begun:
            for message in messages_of(refusal):
                await self(message)
        elif any(name == b"content-type" and kind.startswith(b"text/event-stream") for name, kind in self._headers):
            await self({"type": "http.response.body", "body": event("error", **refusal.body)})
        else:
            raise refusal

    @property
    def _headers(self) -> list[tuple[bytes, bytes]]:
        return self._start["headers"]


def messages_of(refusal: Refusal) -> tuple[Message, Message]:
    """A refusal as ASGI says it."""
    said = refuse(refusal)
    start = {"type": "http.response.start", "status": said.status_code, "headers": said.raw_headers}
    return start, {"type": "http.response.body", "body": said.body}


def sent(scope: Scope, serves: bytes) -> Scope:
    """A scope for another process; where the client has no id of its own, the proxy's is the request's."""
    found = {name: scope[name] for name in PLAIN if name in scope}
    own = any(name == b"x-client-request-id" for name, _ in scope["headers"])
    if not own and CLIENT_ID.fullmatch(serves.decode("latin-1")):
        found["headers"] = [*scope["headers"], (b"x-client-request-id", serves)]
    return found


async def left(receive: Receive) -> None:
    """Return when the client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def whole(receive: Receive, limit: int) -> bytes | None:
    """A body; of one that is too large so much that a replica sees it. None where the client left before its end."""
    body, read, more = bytearray(), 0, True
    while more and read <= DRAINED * limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        read, more = read + len(part), message.get("more_body", False)
        body += part[: limit + 1 - len(body)]
    return bytes(body)


async def model_of(scope: Scope, body: bytes) -> str | None:
    """The field `model` of a request; None where it has none, or cannot be read, which a replica says."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    request = Request(scope, receive)
    with suppress(Exception):  # a broken body makes parsers raise nearly anything
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with request.form() as form:
                found: Any = form.get("model")
        else:
            found = (await request.json()).get("model")
        return found if isinstance(found, str) else None
    return None


async def no_http(scope: Scope, receive: Receive, send: Send) -> None:
    """The beginning and the end; and sockets, of which there are none."""
    if scope["type"] == "lifespan":
        for what in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{what}.complete"})
    else:
        await receive()
        await send({"type": "websocket.close", "code": 1000})
