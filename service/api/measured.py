"""Every request counted, also one that the gate refuses: by the route's template, never by its path.

What the caller says of itself goes with it into the diagnostics.
"""

from collections.abc import Awaitable
from time import perf_counter
from typing import Protocol

import structlog

from service.api.asgi import App, Message, Receive, Scope, Send
from service.api.tracing import told_by_caller

ROUTE = "tailrace.route"  # in the scope: the template of the route that took the request
STREAM = "/api/v2/workflows/runs/{run_id}/stream"
NO_ROUTE = "none"  # refused at the gate, or nothing is there: a path of somebody's choice is no label


class Meter(Protocol):
    """Is told of each request once it is over. ``status`` None: the client left before the answer."""

    def answered(self, *, route: str, method: str, status: int | None, seconds: float | None) -> None:
        """``seconds`` None: the answer was a stream, which takes as long as its run."""
        ...


class Measured:
    """Tells ``meter`` how ``app`` has answered. Stands in front of everything."""

    def __init__(self, app: App, meter: Meter) -> None:
        self.app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        began = perf_counter()
        status: int | None = None

        # Not async: it runs for every frame of every stream, and hands on the awaitable as it is.
        def answer(message: Message) -> Awaitable[None]:
            nonlocal status
            if status is None:
                status = message.get("status", 101)
            return send(message)

        # A request that was sent behind another begins with a copy of that one's context.
        structlog.contextvars.clear_contextvars()
        if told := told_by_caller(scope["headers"]):
            structlog.contextvars.bind_contextvars(**told)
        try:
            await self.app(scope, receive, answer)
        finally:
            route = scope.get(ROUTE, NO_ROUTE)
            self._meter.answered(
                route=route,
                method=scope.get("method", "WS"),
                status=status,
                seconds=None if route == STREAM and status in {101, 200} else perf_counter() - began,
            )
