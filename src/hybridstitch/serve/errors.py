"""Refusals, as the API says them: a status, a sentence with the way out, and when to come again."""

from math import ceil
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from .orders import Failed

KINDS = {401: "authentication_error", 429: "rate_limit_error"}  # else by the status' first digit
ANSWERS = {  # of a failure, by its reason: status, and whether another try may help
    "request": (422, False),
    "memory": (503, False),
    "disk": (503, True),
    "device": (503, True),
    "died": (503, True),
    "draining": (503, True),
    "stopped": (410, False),
    "deadline": (408, False),
    "error": (500, False),
}
SAID = {  # instead of the worker's own words, which the log has
    "memory": "the device has too little memory for this picture; ask for a smaller size, or fewer pictures",
    "disk": "the server's disk takes no more",
    "device": "the device failed as this picture was drawn; another worker takes its place",
    "error": "the server could not draw this picture; its log says why, by this request's id",
}


class Refusal(HTTPException):
    """An answer without a picture.

    Attributes:
        status: of HTTP.
        message: what was given, and the way out.
        code: for programs: "queue_full".
        param: the field at fault, or None.
        retry_after: seconds until it can succeed, or None.
        again: whether a client should try again by itself.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        again: bool | None = None,
    ) -> None:
        """See the class."""
        super().__init__(status, message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after = retry_after
        self.again = again if again is not None else retry_after is not None

    @classmethod
    def of(cls, failure: Failed, *, retry_after: float) -> "Refusal":
        """Of an order that was not drawn.

        Args:
            failure: why.
            retry_after: seconds until another try may help, where one may.
        """
        status, again = ANSWERS[failure.reason]
        message = SAID.get(failure.reason, failure.message)
        return cls(status, message, failure.reason, retry_after=retry_after if again else None, again=again)

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI's clients read it."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def hints(self) -> dict[str, str]:
        """What tells clients when to come again, and OpenAI's whether to at all."""
        found = {"x-should-retry": "true" if self.again else "false"}
        if self.retry_after is not None:
            found["retry-after"] = str(max(1, ceil(self.retry_after)))
        return found if self.status >= 400 else {}


def refuse(refusal: Refusal) -> JSONResponse:
    """A refusal as an answer."""
    return JSONResponse(refusal.body, refusal.status, refusal.hints)
