"""What the server counts, as Prometheus reads it. No label is a prompt or an id, so that their number is small."""

from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .ticket import Ticket

SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
RATIOS = (0.25, 0.5, 0.67, 0.8, 0.9, 1.1, 1.25, 1.5, 2, 4)


class Meters:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        """All at zero."""
        self._registry = registry = CollectorRegistry()
        of = {"registry": registry, "namespace": "hybridstitch"}
        self._requests = Counter("requests", "Requests answered.", ["door", "status"], **of)
        self._seconds = Histogram("request_seconds", "From a request to its answer.", ["door"], buckets=SECONDS, **of)
        self._queued = Histogram("queue_seconds", "From a request to its first step.", buckets=SECONDS, **of)
        self._drawing = Histogram("draw_seconds", "From the first step to the picture.", buckets=SECONDS, **of)
        self._ratio = Histogram(
            "drawn_over_predicted", "Seconds of drawing, over those predicted.", buckets=RATIOS, **of
        )
        self._pictures = Counter("pictures", "Pictures drawn.", **of)
        self._steps = Counter("steps", "Steps drawn, by whom.", ["model"], **of)
        self._tokens = Counter("tokens", "Tokens of all steps, by whether the large model drew them.", ["model"], **of)
        self._recalled = Counter(
            "recalled", "Pictures asked for, by whether they began with one drawn before.", ["result"], **of
        )
        self._spared = Counter("steps_spared", "Steps not drawn, because a picture drawn before stood for them.", **of)
        self._points = Counter(
            "points", "Requests whose speed the server chose, by rung from the closest.", ["rung"], **of
        )
        self._refusals = Counter("refusals", "Requests refused before they were queued.", ["reason"], **of)
        self._failures = Counter("failures", "Requests admitted and not drawn.", ["reason"], **of)
        self._waiting = Gauge("waiting", "Requests that wait.", **of)
        self._busy = Gauge("drawing", "Requests being drawn.", **of)
        self._ready = Gauge("workers_ready", "Workers that have the pair open.", **of)
        self._lost = Counter("workers_lost", "Workers that died.", **of)

    def text(self) -> bytes:
        """What `/metrics` answers."""
        return generate_latest(self._registry)

    def answered(self, door: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(door, str(status)).inc()
        self._seconds.labels(door).observe(seconds)

    def refused(self, reason: str) -> None:
        """A request was not admitted."""
        self._refusals.labels(reason).inc()

    def failed(self, reason: str) -> None:
        """A request was admitted, and not drawn."""
        self._failures.labels(reason).inc()

    def begun(self, ticket: Ticket) -> None:
        """A worker takes a request."""
        self._queued.observe(monotonic() - ticket.created)
        if ticket.point is not None:
            self._points.labels(str(ticket.point)).inc()

    def finished(self, ticket: Ticket) -> None:
        """A request was drawn."""
        if ticket.begun is not None and ticket.ended is not None:
            seconds = ticket.ended - ticket.begun
            self._drawing.observe(seconds)
            if not any(picture.start for picture in ticket.pictures):
                self._ratio.observe(seconds / ticket.predicted)
        for picture in ticket.pictures:
            self._pictures.inc()
            if ticket.order.rest is not None:
                self._recalled.labels("hit" if picture.start else "miss").inc()
                self._spared.inc(picture.start)
            for model, steps in picture.steps.items():
                self._steps.labels({"S+L": "both", "L": "large", "S": "small", "-": "none"}[model]).inc(steps)
            self._tokens.labels("large").inc(picture.large_tokens)
            self._tokens.labels("other").inc(picture.tokens - picture.large_tokens)

    def queue(self, waiting: int, drawing: int) -> None:
        """How long the queue is now."""
        self._waiting.set(waiting)
        self._busy.set(drawing)

    def workers(self, ready: int) -> None:
        """How many workers are ready now."""
        self._ready.set(ready)

    def lost(self) -> None:
        """A worker died."""
        self._lost.inc()
