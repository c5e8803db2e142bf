"""The routes that tell: models, requests, health, metrics, and the page."""

from collections.abc import Sequence
from time import monotonic, time
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from .dispatch import STOPPED, Dispatch
from .errors import Refusal, refuse
from .intake import Intake
from .meters import Meters
from .page import page
from .points import CLOSENESS, QUALITIES
from .ticket import Early, Ticket


def views(dispatch: Dispatch, intake: Intake, meters: Meters, names: Sequence[str]) -> APIRouter:
    """The routes.

    Args:
        dispatch: the queue.
        intake: before it.
        meters: of the server.
        names: the pair, as the server was told, or its recipe and then others.
    """
    router = APIRouter()
    begun, html = int(time()), page()

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    def look() -> HTMLResponse:
        return HTMLResponse(html, headers={"content-security-policy": POLICY, "x-content-type-options": "nosniff"})

    @router.get("/v1/models", tags=["server"])
    async def models() -> dict[str, Any]:
        """The pair, and what requests can choose from; then what else `model` may name."""
        shared = {"object": "model", "created": begun, "owned_by": "hybridstitch"}
        pair, *others = ({"id": name, **shared} for name in names)
        if dispatch.about is not None:
            pair["hybridstitch"] = _about(dispatch, intake)
        return {"object": "list", "data": [pair, *others]}

    @router.get("/v1/requests/{key}", tags=["server"])
    async def request(key: str) -> dict[str, Any]:
        """Where a request is, and who drew what once it is drawn."""
        early = dispatch.early.get(key)
        return _state(dispatch, _find(dispatch, key)) if early is None else _early(dispatch, key, early)

    @router.delete("/v1/requests/{key}", tags=["server"])
    async def stop(key: str) -> dict[str, Any]:
        """Stop a request, within one step."""
        early = dispatch.early.get(key)
        if early is not None:
            early.stopped.set()
            return _early(dispatch, key, early)
        ticket = _find(dispatch, key)
        dispatch.give_up(ticket, "stopped", STOPPED)
        return _state(dispatch, ticket)

    @router.get("/health/live", tags=["server"])
    async def live() -> Response:
        """Whether this server will draw some day."""
        if dispatch.stations.alive:
            return JSONResponse({"status": "live"})
        return refuse(Refusal(503, f"no worker is left: {dispatch.stations.refused}", "dead"))

    @router.get("/health/ready", tags=["server"])
    async def ready() -> Response:
        """Whether this server draws now."""
        if dispatch.ready:
            return JSONResponse({"status": "ready", **_work(dispatch)})
        seconds = min(dispatch.stations.seconds())
        why = "draining" if dispatch.draining else "opening"
        return refuse(Refusal(503, f"no worker is ready: the server is {why}", why, retry_after=seconds))

    @router.get("/metrics", tags=["server"])
    async def metrics() -> Response:
        """Counters, as Prometheus reads them."""
        return Response(meters.text(), media_type=CONTENT_TYPE_LATEST)

    return router


POLICY = (  # of the page: it holds all it needs, and asks this server alone
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'"
)


def _find(dispatch: Dispatch, key: str) -> Ticket:
    ticket = dispatch.tickets.get(key)
    if ticket is None:
        raise Refusal(404, "no such request; only the most recent ones are kept", "unknown_request")
    return ticket


def _state(dispatch: Dispatch, ticket: Ticket) -> dict[str, Any]:
    order, now = ticket.order, monotonic()
    before = list(dispatch.waiting)[: max(dispatch.place(ticket) - 1, 0)]
    found: dict[str, Any] = {
        "id": order.id,
        "state": ticket.state,
        "place": dispatch.place(ticket),
        "steps_drawn": ticket.steps,
        "steps": order.steps * order.count,
        "predicted_seconds": ticket.predicted,
        "predicted_wait_seconds": dispatch.wait_seconds(before) if ticket.state == "waiting" else 0.0,
        "seconds": (ticket.ended or now) - ticket.created,
        "policy": order.policy,
    }
    if ticket.failure is not None:
        found["error"] = {"code": ticket.failure.reason, "message": Refusal.of(ticket.failure, retry_after=0).message}
    if ticket.pictures:
        found["traces"] = [picture.trace for picture in ticket.pictures]
    return found


def _early(dispatch: Dispatch, key: str, early: Early) -> dict[str, Any]:
    """Of a request that waits for the pair to be opened: nothing can be predicted yet but when that will be."""
    return {
        "id": key,
        "state": "stopped" if early.stopped.is_set() else "waiting",
        "place": list(dispatch.early).index(key) + 1,
        "steps_drawn": 0,
        "steps": None,
        "predicted_seconds": None,
        "predicted_wait_seconds": min(dispatch.stations.seconds()),
        "seconds": monotonic() - early.since,
        "policy": None,
    }


def _work(dispatch: Dispatch) -> dict[str, Any]:
    workers = [{"device": s.device, "state": s.state, "pid": s.member and s.member.pid} for s in dispatch.stations]
    drawing = sum(len(station.tickets) for station in dispatch.stations)
    return {"waiting": len(dispatch.waiting), "drawing": drawing, "workers": workers}


def _about(dispatch: Dispatch, intake: Intake) -> dict[str, Any]:
    about, points, recipe = dispatch.about, intake.points, intake.recipe
    assert about is not None
    own = points.own
    front = () if recipe is None else recipe.points
    return {
        "pair": about.pair,
        "small": about.small,
        "models": dict(about.models),
        "device": about.device,
        "dtype": about.dtype,
        "policy": str(own.policy),
        "steps": own.steps,
        "guidance": own.guidance,
        "size": "{}x{}".format(*(own.size or about.size)),
        "size_multiple": about.sizes.multiple,
        "size_largest": about.sizes.largest,
        "images_per_call": about.together,
        "qualities": list(QUALITIES),
        "quality_closeness": CLOSENESS,
        "point": None if points.point is None else points.point.name,
        "front": [
            {"name": p.name, "speed": p.speed, "closeness": p.closeness.mean, "closeness_at_least": p.closeness.low}
            for p in sorted(front, key=lambda point: point.speed)
        ],
        "remembers": intake.remembers,
        "notes": list(about.notes),
    }
