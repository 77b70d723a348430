"""ASGI as the gate and the stream speak it: plain mappings, HTTP and WebSocket alike."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from service.api.problems import MEDIA_TYPE, Problem

PREFIX = "/api/v2"
PROTOCOL = "tailrace.v2"  # of the stream; a ticket beside it is not echoed

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Names in a scope, of ASGI, that only matter until the request is answered.
_UNTIL_ANSWERED = frozenset({
    "asgi", "client", "extensions", "headers", "http_version", "path_params", "query_string", "raw_path",
    "root_path", "scheme", "server", "state", "subprotocols",
})  # fmt: skip
_STREAM_PATH = re.compile(rf"{PREFIX}/workflows/runs/([^/]+)/stream/?")
CLOSING_STATUSES = frozenset({400, 401, 403, 404, 409, 410, 429, 500, 503})  # those that have a close code


def streamed_run(scope: Scope) -> str | None:
    """Return what stands for the run's id if the request is for a stream, else None."""
    found = _STREAM_PATH.fullmatch(scope["path"])
    return found[1] if found else None


def forget_request(scope: Scope) -> None:
    """Leave in ``scope`` only what is told of the request once it is over: a stream may be open for days."""
    kept = {name: value for name, value in scope.items() if name not in _UNTIL_ANSWERED}
    scope.clear()  # a dict only shrinks when it is filled again
    scope.update(kept)


def may_close(scope: Scope, problem: Problem) -> bool:
    """Tell whether a WebSocket is refused by a close code: for web pages, which cannot see a status."""
    if scope["type"] != "websocket" or problem.status not in CLOSING_STATUSES:
        return False
    return ("errors", "close") in parse_qsl(scope["query_string"].decode("latin-1"))


def subprotocol(scope: Scope) -> str | None:
    """Return what a WebSocket's answer has to name: browsers insist on one of those that they offered."""
    return PROTOCOL if PROTOCOL in (scope.get("subprotocols") or ()) else None


async def send_problem(scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
    """Answer a request, or a WebSocket that is not accepted yet, with ``problem`` and its real status.

    A WebSocket that asked with ``errors=close`` is accepted and closed with the problem's close code.
    """
    if may_close(scope, problem):
        await receive()  # websocket.connect
        await send({"type": "websocket.accept", "subprotocol": subprotocol(scope)})
        await send({"type": "websocket.close", "code": problem.close_code, "reason": problem.reason()})
        return
    body = problem.body()
    headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **problem.headers}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": problem.status, "headers": raw})
    await send({"type": f"{kind}.body", "body": body, "more_body": False})


def only(scope: Scope, name: bytes) -> str | None:
    """Return the header that is there exactly once, else None."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else None
