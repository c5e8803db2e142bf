"""The routes that draw: generations and edits, answered whole or as a stream."""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from ..errors import nearest
from .answers import Door, completed_event, event, images_response, partial_event
from .dispatch import STOPPED, Dispatch
from .errors import Refusal, refuse
from .fields import EditRequest, GenerationRequest, PictureRequest, complaint
from .intake import Intake, Taken
from .orders import Failed, Finished, Partial
from .settings import ServeSettings
from .source import edit_of, open_picture
from .ticket import Early, Ticket

FILES = ("image", "image[]", "mask")
BEAT_SECONDS = 10.0  # between signs of life of a stream


def doors(dispatch: Dispatch, intake: Intake, settings: ServeSettings) -> APIRouter:
    """The routes.

    Args:
        dispatch: the queue.
        intake: before it.
        settings: of the server.
    """
    router = APIRouter(prefix="/v1/images", tags=["images"])

    @router.post("/generations", responses=RESPONSES)
    async def generations(asked: GenerationRequest, request: Request) -> Any:
        """Draw pictures of a prompt."""
        await opened(request, asked)
        return await answer(request, intake.take(asked, request.state.id, request.state.since), "image_generation")

    @router.post("/edits", responses=RESPONSES, openapi_extra={"requestBody": edit_body()})
    async def edits(request: Request) -> Any:
        """Draw a picture anew: all of it, or where the mask, or the picture itself, is transparent."""
        asked, files = await _form(request)
        if "image" not in files:
            raise Refusal(
                400, "image is missing; send the file itself, as multipart/form-data", "missing", param="image"
            )

        await opened(request, asked)

        def made() -> Any:
            image = open_picture(files["image"], "image", settings.max_pixels)
            mask = open_picture(files["mask"], "mask", settings.max_pixels) if "mask" in files else None
            size = intake.size(asked) or intake.near(image.size)
            return edit_of(image, mask, size, asked.strength), size

        edit, size = await asyncio.to_thread(made)
        taken = intake.take(asked, request.state.id, request.state.since, edit, size)
        return await answer(request, taken, "image_edit")

    async def opened(request: Request, asked: PictureRequest) -> None:
        """Wait until the pair was opened once, if that takes no longer than a request may wait."""
        if dispatch.about is not None or len(dispatch.early) >= settings.max_waiting:
            return
        dispatch.check_id(request.state.id)
        early = dispatch.early[request.state.id] = Early(request.state.since)
        gone, stopped = asyncio.ensure_future(_gone(request)), asyncio.ensure_future(early.stopped.wait())
        once = asyncio.ensure_future(dispatch.once.wait())
        left = request.state.since + (asked.timeout or settings.timeout_seconds) - monotonic()
        patience = max(min(left, settings.max_wait_seconds), 0)
        try:
            await asyncio.wait({gone, once, stopped}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise Refusal(410, "the client left before the pair was open", "gone")
            if stopped.done():
                raise Refusal(410, STOPPED, "stopped")
        finally:
            del dispatch.early[request.state.id]
            for waited in (gone, once, stopped):
                waited.cancel()

    async def answer(request: Request, taken: Taken, door: Door) -> Any:
        ticket = taken.ticket
        if settings.log_prompts:
            request.state.facts["prompt"] = taken.asked.prompt
        if taken.asked.stream:
            return StreamingResponse(stream(request, taken, door), media_type="text/event-stream")
        try:
            async for _ in events(request, ticket):
                pass
        finally:
            dispatch.give_up(ticket, "stopped", "the client left")
            _told(request, ticket)
        if ticket.failure is not None:
            ticket.lighten(traces=False)
            return refuse(Refusal.of(ticket.failure, retry_after=dispatch.stations.opening_seconds))
        body = await asyncio.to_thread(images_response, taken)
        ticket.lighten(traces=True)
        return JSONResponse(body)

    async def stream(request: Request, taken: Taken, door: Door) -> AsyncIterator[bytes]:
        try:
            async for said in events(request, taken.ticket):
                match said:
                    case Partial():
                        yield partial_event(taken, said, door)
                    case Finished():
                        yield completed_event(taken, door)
                    case Failed():
                        refusal = Refusal.of(said, retry_after=dispatch.stations.opening_seconds)
                        yield event("error", **refusal.body)
                    case None:
                        yield b": drawing\n\n"
        finally:
            dispatch.give_up(taken.ticket, "stopped", "the client left")
            _told(request, taken.ticket)
            taken.ticket.lighten(traces=True)

    async def events(request: Request, ticket: Ticket) -> AsyncIterator[Partial | Finished | Failed | None]:
        """What becomes of a ticket, to the end or until the client leaves; None now and then."""
        gone = asyncio.ensure_future(_gone(request))
        try:
            said = None
            while not isinstance(said, Finished | Failed):
                coming = asyncio.ensure_future(ticket.events.get())
                await asyncio.wait({coming, gone}, timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if coming.done():
                    said = coming.result()
                    yield said
                    continue
                coming.cancel()
                if gone.done():
                    dispatch.give_up(ticket, "stopped", "the client left")
                    return
                yield None
        finally:
            gone.cancel()

    return router


async def _gone(request: Request) -> None:
    """Return when the client leaves."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _form(request: Request) -> tuple[EditRequest, dict[str, bytes]]:
    """Fields and files of an edit."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refusal(415, "send the picture and the fields as multipart/form-data", "bad_type")
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    try:
        async with request.form(max_files=2, max_fields=64, max_part_size=1 << 17) as form:
            for name, value in form.multi_items():
                plain = name.removesuffix("[]")
                if name in fields or plain in files:
                    raise Refusal(400, f"{plain!r:.80} was given twice; give it once", "twice", param=plain[:80])
                if name not in FILES:
                    fields[name] = value
                elif isinstance(value, UploadFile):
                    files[plain] = await value.read()
                else:
                    said = f"{plain} is text; send the file itself, URLs are not fetched"
                    raise Refusal(400, said, "bad_picture", param=plain)
    except ClientDisconnect as error:
        raise Refusal(400, "the client left before it had sent all", "gone") from error
    except OSError as error:  # large files are laid down on the disk
        raise Refusal(503, "the picture cannot be stored: the server's disk is full", "disk") from error
    if unknown := [name for name in fields if name not in EditRequest.model_fields]:
        raise Refusal(
            400, f"unknown field {unknown[0]!r:.80}; {nearest(unknown[0][:80], [*EditRequest.model_fields, *FILES])}",
            "unknown_field", param=unknown[0][:80],
        )  # fmt: skip
    try:
        return EditRequest.model_validate(fields), files
    except ValidationError as error:
        status, message, param = complaint(list(error.errors()), EditRequest)
        raise Refusal(status, message, "bad_field", param=param) from error


def _told(request: Request, ticket: Ticket) -> None:
    """What the log says of a request when it is over."""
    drawn = ticket.begun is not None and ticket.ended is not None
    request.state.facts.update(
        state=ticket.state,
        policy=ticket.order.policy,
        steps=ticket.order.steps,
        size=ticket.order.size,
        n=ticket.order.count,
        predicted_seconds=round(ticket.predicted, 3),
        drawn_seconds=round((ticket.ended or 0) - (ticket.begun or 0), 3) if drawn else None,
        remembered_until_step=[picture.start for picture in ticket.pictures if picture.start],
    )


def edit_body() -> dict[str, Any]:
    """What OpenAPI says of an edit's form."""
    schema = EditRequest.model_json_schema()
    file = {"type": "string", "format": "binary"}
    schema["properties"] = {**schema["properties"], "image": file, "mask": file}
    schema["required"] = [*schema["required"], "image"]
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": description}
    for status, description in {
        200: "The pictures; a stream of events where `stream` was asked for.",
        400: "A field that nobody knows, or a body that cannot be read.",
        401: "The API key is missing or wrong.",
        404: "Of several models there is none of this name.",
        408: "The request's timeout passed.",
        409: "The client's own id is in use.",
        410: "The request was stopped.",
        413: "More than this server draws or reads.",
        422: "A field that cannot be so, or settings that cannot be served.",
        429: "Too many requests wait; try again later after `Retry-After` seconds.",
        503: "No worker can draw it now.",
    }.items()
}
