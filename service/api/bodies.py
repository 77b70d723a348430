"""The body of a request: whole, within its limit and its time, and JSON."""

import asyncio

from service.api.asgi import Message, Receive, Scope, only
from service.api.problems import Problem

BODY_TIMEOUT_S = 30.0  # for the whole body of a request
# A client that is still sending when we answer and close would meet a reset connection, not the answer:
# so much of a body over the limit is read and thrown away first.
DISCARDED_LIMITS_MAX = 8


def oversized(scope: Scope, bytes_max: int) -> Problem | None:
    """Return why a body is not even read: it says itself that it is far too large."""
    length = only(scope, b"content-length")
    if length is None or int(length) <= bytes_max * DISCARDED_LIMITS_MAX:
        return None
    return _too_large(bytes_max)


async def whole_body(scope: Scope, receive: Receive, bytes_max: int) -> bytes | Problem | None:
    """Return the whole body, why it is refused, or None when the client has left."""
    parts = bytearray()
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                size += len(message["body"])
                if size <= bytes_max:
                    parts += message["body"]
                if not message["more_body"] or size > bytes_max * DISCARDED_LIMITS_MAX:
                    break
    except TimeoutError:
        return Problem(408, f"The body took over {BODY_TIMEOUT_S:g} s.", headers={"connection": "close"})
    if size > bytes_max:
        return _too_large(bytes_max)
    if parts and not _is_json(only(scope, b"content-type")):
        return Problem(415, "The body must be application/json.", headers={"accept-post": "application/json"})
    return bytes(parts)


def _too_large(bytes_max: int) -> Problem:
    return Problem(413, f"The body is over the limit of {bytes_max} bytes.", headers={"connection": "close"})


def has_body(scope: Scope) -> bool:
    """Tell whether the request announces a body."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in scope["headers"]
    )


def _is_json(content_type: str | None) -> bool:
    media_type, _, parameter = (content_type or "").lower().partition(";")
    return media_type.strip() == "application/json" and parameter.replace('"', "").strip() in {
        "",
        "charset=utf-8",
        "charset=us-ascii",
    }


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives the whole body first, then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
