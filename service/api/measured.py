"""Every request counted, also one that the gate refuses: by the route's template, never by its path."""

from typing import Protocol

from service.api.asgi import Scope

ROUTE = "tailrace.route"  # in the scope: the template of the route that took the request
ENDED = "tailrace.ended"  # in the scope of a stream that is over: how it ended, as the metrics have it
STREAM = "/api/v2/workflows/runs/{run_id}/stream"
NO_ROUTE = "none"  # refused at the gate, or nothing is there: a path of somebody's choice is no label


class Meter(Protocol):
    """Is told of each request once it is over. ``status`` None: the client left before the answer."""

    def answered(self, *, route: str, method: str, status: int | None, seconds: float | None) -> None:
        """``seconds`` None: the answer was a stream, which takes as long as its run."""
        ...


def tell(meter: Meter, scope: Scope, status: int | None, seconds: float) -> None:
    """Tell ``meter`` how the request of ``scope`` was answered, and within which time."""
    route = scope.get(ROUTE, NO_ROUTE)
    streamed = route == STREAM and status in {101, 200}
    meter.answered(
        route=route, method=scope.get("method", "WS"), status=status, seconds=None if streamed else seconds
    )
