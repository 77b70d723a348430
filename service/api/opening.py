"""What answers while the log is being opened: it may have to be brought up to date first."""

from msgspec import json

from service.api.asgi import Receive, Scope, Send, send_problem
from service.api.health import VERSION, Reason
from service.api.problems import Problem
from service.api.schemas import Health

_SAID = "the log is being opened and, if it is of an older version, brought up to date"
_NOT_YET = Problem(
    503, f"Not ready: {_SAID}.", extra={"reasons": [Reason("migrating", _SAID)]}, headers={"retry-after": "1"}
)


async def opening(scope: Scope, receive: Receive, send: Send) -> None:
    """Say that the service lives (``/health``), and to everything else 503, with the reason of ``/ready``."""
    if scope["type"] == "http" and scope["path"] == "/health" and scope["method"] in {"GET", "HEAD"}:
        body = json.encode(Health("ok", VERSION))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] == "GET" else b""})
    else:
        await send_problem(scope, receive, send, _NOT_YET)
