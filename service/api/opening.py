"""What answers while the log is being opened: it may have to be brought up to date, or to wait for space."""

from collections.abc import Callable

from msgspec import json

from service.api.asgi import App, Receive, Scope, Send, send_problem
from service.api.health import VERSION, Reason
from service.api.problems import Problem
from service.api.schemas import Health


def opening(has_room: Callable[[], bool]) -> App:
    """Return an app that says the service lives (``/health``), and to everything else 503, and why.

    ``has_room``: whether the disk has what a start needs; without, that is what is waited for.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/health" and scope["method"] in {"GET", "HEAD"}:
            body = json.encode(Health("ok", VERSION))
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body if scope["method"] == "GET" else b""})
        else:
            await send_problem(scope, receive, send, _MIGRATING if has_room() else _NO_ROOM)

    return app


def _because(code: str, said: str) -> Problem:
    reasons = [Reason(code, said)]
    return Problem(503, f"Not ready: {said}.", extra={"reasons": reasons}, headers={"retry-after": "1"})


_MIGRATING = _because(
    "migrating", "the log is being opened and, if it is of an older version, brought up to date"
)
_NO_ROOM = _because("disk_full", "the disk beside the log is full, and to open the log takes some space")
