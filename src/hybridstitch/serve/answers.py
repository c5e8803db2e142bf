"""A drawn request, as OpenAI's clients read it, and in `hybridstitch` what only this server knows."""

import json
from base64 import b64encode
from time import time
from typing import Any, Literal

from .intake import Taken
from .orders import Order, Partial, Picture

Door = Literal["image_generation", "image_edit"]


def about(taken: Taken) -> dict[str, Any]:
    """How pictures were drawn: all that draws them again, what they took, and who drew what."""
    ticket, meant = taken.ticket, taken.meant
    order, point = ticket.order, meant.point
    if order.edit is not None or any(picture.start for picture in ticket.pictures):
        point = None  # it was not drawn as the point was measured
    seconds = None if ticket.begun is None or ticket.ended is None else ticket.ended - ticket.begun
    return {
        "id": order.id,
        "policy": order.policy,
        "steps": order.steps,
        "shift": order.shift,
        "levels": order.levels,
        "guidance": order.guidance,
        "size": f"{order.size[0]}x{order.size[1]}",
        "negative_prompt": order.negative,
        "strength": None if order.edit is None else order.edit.strength,
        "speed": None if point is None else point.speed,
        "closeness": None if point is None else point.closeness.mean,
        "chosen_by_load": ticket.point,
        "predicted_seconds": ticket.predicted,
        "seconds": seconds,
        "waited_seconds": None if ticket.begun is None else ticket.begun - ticket.created,
        "images": [
            {
                "seed": picture.seed,
                "seconds": picture.seconds,
                "trace": picture.trace_digest,
                "pixels": picture.pixel_digest,
                "drew": dict(picture.steps),
                "large_tokens": picture.large_tokens,
                "tokens": picture.tokens,
                "flags": list(picture.flags),
                "memory": memory_of(picture, order),
            }
            for picture in ticket.pictures
        ],
        "notes": list(meant.notes),
    }


def memory_of(picture: Picture, order: Order) -> dict[str, Any] | None:
    """Whether a picture began with one drawn before, and how near that was; None where none was looked for.

    Args:
        picture: drawn.
        order: for which.
    """
    if order.rest is None:
        return None
    found = {"hit": picture.start > 0, "start": picture.start, "similarity": picture.similarity}
    return {**found, "steps": order.rest.steps, "policy": order.rest.policy} if picture.start else found


def images_response(taken: Taken) -> dict[str, Any]:
    """The SDK's `ImagesResponse`."""
    return {
        "created": int(time()),
        "data": [{"b64_json": b64encode(picture.file).decode()} for picture in taken.ticket.pictures],
        **_file_of(taken),
        "usage": _usage(taken),
        "hybridstitch": about(taken),
    }


def partial_event(taken: Taken, said: Partial, door: Door) -> bytes:
    """The SDK's `ImageGenPartialImageEvent`, as a server-sent event."""
    return event(
        f"{door}.partial_image",
        b64_json=b64encode(said.file).decode(),
        created_at=int(time()),
        partial_image_index=said.index,
        **_file_of(taken),
    )


def completed_event(taken: Taken, door: Door) -> bytes:
    """The SDK's `ImageGenCompletedEvent`, as a server-sent event."""
    (picture,) = taken.ticket.pictures
    return event(
        f"{door}.completed",
        b64_json=b64encode(picture.file).decode(),
        created_at=int(time()),
        **_file_of(taken),
        usage=_usage(taken),
        hybridstitch=about(taken),
    )


def event(kind: str, **data: Any) -> bytes:
    """A server-sent event.

    Args:
        kind: its name.
        data: what it says.
    """
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()


def _file_of(taken: Taken) -> dict[str, Any]:
    width, height = taken.ticket.order.size
    file = {"background": "opaque", "output_format": taken.asked.output_format, "quality": taken.asked.quality}
    return {**file, "size": f"{width}x{height}"}


def _usage(taken: Taken) -> dict[str, Any]:
    """Text tokens in, tokens of all steps out."""
    drawn = sum(picture.tokens for picture in taken.ticket.pictures)
    return {
        "input_tokens": taken.text_tokens,
        "input_tokens_details": {"text_tokens": taken.text_tokens, "image_tokens": 0},
        "output_tokens": drawn,
        "total_tokens": taken.text_tokens + drawn,
    }
