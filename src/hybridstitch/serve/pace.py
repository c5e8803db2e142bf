"""Load decides the speed: all that wait are drawn at the closest point of the recipe that serves them in time.

MoDM watches its load and moves between a large and a small model; here a measured front lies between the two, and each
point of it has its price. Looked at whenever a worker takes the next request. No request is drawn so closely that its
own, or another one's, timeout passes.
"""

import heapq
from collections.abc import Sequence
from time import monotonic

from .forecast import Forecast
from .ticket import Ticket

AIM = 0.97  # of the target: predicted seconds are off by up to 1 % of it, and answers take some too


def choose(waiting: Sequence[Ticket], free: Sequence[float], forecast: Forecast, target_seconds: float) -> None:
    """Settle the orders of requests that leave their speed to the server.

    Args:
        waiting: in order; those with `rungs`, closest first, are settled, at the fastest where none serves in time.
        free: seconds until each worker is free.
        forecast: of seconds.
        target_seconds: from a request's coming to its picture.
    """
    moving = [ticket for ticket in waiting if ticket.rungs]
    for rung in range(max((len(ticket.rungs) for ticket in moving), default=0)):
        for ticket in moving:
            ticket.point = min(rung, len(ticket.rungs) - 1)
            ticket.order = ticket.rungs[ticket.point]
            ticket.predicted = forecast.seconds(ticket.order)
        if _in_time(waiting, free, target_seconds):
            return


def _in_time(waiting: Sequence[Ticket], free: Sequence[float], target_seconds: float) -> bool:
    now, free = monotonic(), list(free)
    heapq.heapify(free)
    for ticket in waiting:
        done = heapq.heappop(free) + ticket.predicted
        heapq.heappush(free, done)
        late = done > AIM * (ticket.deadline - now)
        if late or (ticket.rungs and now - ticket.created + done > AIM * target_seconds):
            return False
    return True
