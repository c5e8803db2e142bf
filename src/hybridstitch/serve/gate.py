"""What every request passes before a route sees it: its id, its host, its key, the size of its body; and the log."""

import hmac
import re
import secrets
from time import monotonic
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import Refusal, refuse
from .logs import note
from .meters import Meters
from .settings import LOOPBACK, ServeSettings

CLIENT_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
OPEN = ("/health/live", "/health/ready")  # to anybody
DRAINED = 4  # bodies of the largest size that are read and thrown away, so that a client can read the refusal


class Gate:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, meters: Meters) -> None:
        """Stand before an application.

        Args:
            app: the routes.
            settings: of the server.
            meters: count answers.
        """
        self.app, self._settings, self._meters = app, settings, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        key = f"req-{secrets.token_hex(8)}"
        state = scope.setdefault("state", {})
        begun, status, started = monotonic(), 500, False

        async def answer(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                started = True
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", state["id"].encode())]
            await send(message)

        state["id"], state["since"], state["facts"] = key, begun, {}
        try:
            state["id"] = self._checked(scope, headers, key)
            limit = limit_of(self._settings, scope["path"])
            if int(headers.get("content-length") or 0) > limit:
                await _drain(receive, DRAINED * limit)
                raise _too_large(limit)
            await self.app(scope, _capped(receive, limit), answer)
        except Refusal as refusal:
            self._meters.refused(refusal.code)
            await refuse(refusal)(scope, receive, answer)
        except Exception:
            if not started:
                said = "internal error; look for this request's id in the server's log"
                await refuse(Refusal(500, said, "error"))(scope, receive, answer)
            raise  # the server's log has the traceback
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._meters.answered(route, status, monotonic() - begun)
            note(
                "answered", id=state["id"], method=scope["method"], path=route, status=status,
                seconds=round(monotonic() - begun, 4), **state["facts"],
            )  # fmt: skip

    def _checked(self, scope: Scope, headers: dict[str, str], key: str) -> str:
        """The id of a request that may pass."""
        host = re.sub(r":\d*$", "", headers.get("host", ""))
        if self._settings.host in LOOPBACK and host not in LOOPBACK:  # a site that points its own name here
            raise Refusal(403, "this server only answers this machine; use localhost or 127.0.0.1", "bad_host")
        wanted = self._settings.api_key
        if wanted is not None and scope["path"] not in OPEN and scope["path"] != "/":
            given = headers.get("authorization", "").removeprefix("Bearer ").strip()
            if not hmac.compare_digest(given.encode(), wanted.get_secret_value().encode()):
                raise Refusal(401, "the API key is missing or wrong; send Authorization: Bearer KEY", "bad_key")
        if not headers.get("content-length", "0").isdecimal():
            raise Refusal(400, "content-length is no number", "bad_header")
        own = headers.get("x-client-request-id")
        if own is not None and CLIENT_ID.fullmatch(own) is None:
            raise Refusal(400, "X-Client-Request-Id has 8 to 64 letters, digits, - or _", "bad_id")
        return own or key


def limit_of(settings: ServeSettings, path: str) -> int:
    """Bytes of a body that are read.

    Args:
        settings: of the server.
        path: that is asked for.
    """
    return settings.max_body_mib << 20 if path.endswith("/edits") else settings.max_json_kib << 10


def _capped(receive: Receive, limit: int) -> Receive:
    """A body that says nothing of its length is counted as it comes."""
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise _too_large(limit)
        return message

    return counted


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"the body has more than {limit} bytes", "body_too_large")


async def _drain(receive: Receive, most: int) -> None:
    read, more = 0, True
    while more and read <= most:
        message: Any = await receive()
        read += len(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
