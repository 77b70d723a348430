"""The gate that every request passes, HTTP and WebSocket alike: whose it is, how large, of which type.

Browsers send an Origin and cannot choose their Host, so no web page can drive a service on loopback.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Iterable

import structlog

from service.api.asgi import App, Message, Receive, Scope, Send, send_problem
from service.api.problems import Problem

BODY_TIMEOUT_S = 30.0  # for the whole body of a request
# A client that is still sending when we answer and close would meet a reset connection, not the answer:
# so much of a body over the limit is read and thrown away first.
DISCARDED_LIMITS_MAX = 8
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

_CORS = [(b"vary", b"origin"), (b"access-control-expose-headers", b"location, retry-after, x-request-id")]

_diagnostics = structlog.get_logger("tailrace.http")


def own_authorities(host: str, port: int) -> frozenset[str]:
    """Return every ``host:port`` by which a client may address the service bound to ``host``."""
    bound = f"[{host}]" if ":" in host else host
    names = {*LOOPBACK_NAMES, bound} - {"", "0.0.0.0", "[::]"}  # noqa: S104  a wildcard is not a name
    return frozenset({f"{name}:{port}" for name in names} | (names if port == 80 else set()))


class Gate:
    """Refuses with a problem what must not reach ``app``; gives it complete bodies, and each answer an id.

    ``authorities``: what own_authorities says. ``hosts``: further names, with a port or for any port.
    ``origins``: web origins that may call and read from elsewhere.
    """

    def __init__(
        self,
        app: App,
        *,
        authorities: Iterable[str],
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        body_bytes_max: int,
    ) -> None:
        self.app = app
        self.authorities = frozenset(authorities)
        self.hosts = frozenset(hosts)
        self.origins = frozenset(origins)
        self.body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        request_id = secrets.token_hex(8)
        status: int | None = None
        headers = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]

        # Not async: it runs for every frame of every stream, and hands on the awaitable as it is.
        def answer(message: Message) -> Awaitable[None]:
            nonlocal status
            if status is None:
                status = message.get("status", 101)
                message["headers"] = [*message.get("headers", ()), *headers]
            return send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._admit(scope, receive, answer, headers)
            finally:
                _diagnostics.info(
                    "request",
                    method=scope.get("method", "WS"),
                    path=scope["path"],
                    status=status,
                    ms=round((time.monotonic() - started) * 1000, 1),
                )

    async def _admit(
        self, scope: Scope, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]
    ) -> None:
        refusal = self._foreign(scope) or self._oversized(scope)
        if refusal is not None:
            await send_problem(scope, receive, send, refusal)
            return
        if (origin := _only(scope, b"origin")) in self.origins and origin is not None:
            headers += [(b"access-control-allow-origin", origin.encode()), *_CORS]
            if scope.get("method") == "OPTIONS" and _only(scope, b"access-control-request-method"):
                await _preflight(send)
                return
        if scope["type"] == "http" and _has_body(scope):
            body = await self._body(scope, receive)
            if isinstance(body, Problem):
                await send_problem(scope, receive, send, body)
                return
            if body is None:
                return
            receive = _replayed(body, receive)
        await self.app(scope, receive, send)

    def _foreign(self, scope: Scope) -> Problem | None:
        """Return why this request is not for us, or from somebody else's web page."""
        host = _only(scope, b"host")
        if host is None:
            return Problem(400, "The request needs exactly one Host.")
        host = host.lower()
        if not (host in self.authorities or host in self.hosts or _name(host) in self.hosts):
            return Problem(421, f"The host {host!r} is not ours; TAILRACE_HOSTS can name it.")
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        if not origins:
            return None
        origin = _only(scope, b"origin") or "several origins"
        scheme, _, authority = origin.lower().partition("://")
        same = scheme in {"http", "https"} and authority == host
        ours = scheme == "http" and authority in self.authorities
        if same or ours or origin in self.origins:
            return None
        return Problem(403, f"The origin {origin!r} may not call us; TAILRACE_ORIGINS can name it.")

    def _oversized(self, scope: Scope) -> Problem | None:
        length = _only(scope, b"content-length")
        if length is None or int(length) <= self.body_bytes_max * DISCARDED_LIMITS_MAX:
            return None
        return self._too_large()

    def _too_large(self) -> Problem:
        return Problem(
            413,
            f"The body is over the limit of {self.body_bytes_max} bytes.",
            headers={"connection": "close"},
        )

    async def _body(self, scope: Scope, receive: Receive) -> bytes | Problem | None:
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
                    if size <= self.body_bytes_max:
                        parts += message["body"]
                    if not message["more_body"] or size > self.body_bytes_max * DISCARDED_LIMITS_MAX:
                        break
        except TimeoutError:
            return Problem(408, f"The body took over {BODY_TIMEOUT_S:g} s.", headers={"connection": "close"})
        if size > self.body_bytes_max:
            return self._too_large()
        if parts and not _is_json(_only(scope, b"content-type")):
            return Problem(
                415, "The body must be application/json.", headers={"accept-post": "application/json"}
            )
        return bytes(parts)


def _only(scope: Scope, name: bytes) -> str | None:
    """Return the header that is there exactly once, else None."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else None


def _name(authority: str) -> str:
    """Return ``host`` of ``host`` or ``host:port``; an address in brackets keeps them."""
    name, colon, port = authority.rpartition(":")
    return name if colon and port.isdigit() else authority


def _has_body(scope: Scope) -> bool:
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


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives the whole body first, then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _preflight(send: Send) -> None:
    """Answer a browser that asks, for an origin we know, what it may send."""
    headers = [
        (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, DELETE"),
        (b"access-control-allow-headers", b"content-type, idempotency-key, last-event-id"),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
