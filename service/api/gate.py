"""The gate that every request passes, HTTP and WebSocket alike: whose it is, how large, of which type.

Browsers send an Origin and cannot choose their Host, so no web page can drive a service on loopback.
"""

import secrets
import time
from collections.abc import Awaitable, Iterable

import structlog

from service.api.asgi import App, Message, Receive, Scope, Send, only, send_problem
from service.api.bodies import has_body, oversized, replayed, whole_body
from service.api.credentials import Credentials, is_secure
from service.api.measured import ENDED, NO_ROUTE, Meter, tell
from service.api.peers import Proxies
from service.api.problems import Problem, problem_of
from service.api.rights import GRANT
from service.api.tracing import told_by_caller
from service.errors import Throttled, Unauthenticated

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

_CORS_HEADERS = (
    b"authorization", b"content-type", b"idempotency-key", b"last-event-id", b"traceparent", b"tracestate",
    b"x-request-id",
)  # fmt: skip
_CORS = [(b"vary", b"origin"), (b"access-control-expose-headers", b"location, retry-after, x-request-id")]

_diagnostics = structlog.get_logger("tailrace.http")


def own_authorities(host: str, port: int, *, tls: bool = False) -> frozenset[str]:
    """Return every ``host:port`` by which a client may address the service bound to ``host``."""
    bound = f"[{host}]" if ":" in host else host
    names = {*LOOPBACK_NAMES, bound} - {"", "0.0.0.0", "[::]"}  # noqa: S104  a wildcard is not a name
    return frozenset(
        {f"{name}:{port}" for name in names} | (names if port == (443 if tls else 80) else set())
    )


class Gate:
    """Refuses with a problem what must not reach ``app``; gives it complete bodies, and each answer an id.

    ``authorities``: what own_authorities says. ``hosts``: further names, with a port or for any port.
    ``origins``: web origins that may call and read from elsewhere. ``credentials`` finds out what the caller
    may do; it stands in the scope for those behind the gate. ``proxies``: those that may speak for others.
    ``meter`` is told of every request, also of one that is refused.
    """

    def __init__(
        self,
        app: App,
        *,
        authorities: Iterable[str],
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        credentials: Credentials,
        proxies: Proxies,
        body_bytes_max: int,
        meter: Meter,
    ) -> None:
        self.app = app
        self.credentials = credentials
        self.proxies = proxies
        self.authorities = frozenset(authorities)
        self.hosts = frozenset(hosts)
        self.origins = frozenset(origins)
        self.body_bytes_max = body_bytes_max
        self.meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = secrets.token_hex(8)
        answer, client = _Answer(send, request_id), ""
        # A request that was sent behind another begins with a copy of that one's context.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id, **told_by_caller(scope["headers"]))
        try:
            # Not within _admit: each call that an open stream is deep in takes memory, of each watcher.
            admitted = await self._admit(scope, receive, answer)
            client = (scope.get("client") or ("",))[0]  # what else is known of it, an open stream forgets
            if admitted is not None:
                await self.app(scope, admitted, answer)
        finally:
            seconds = time.perf_counter() - began
            tell(self.meter, scope, answer.status, seconds)
            _diagnostics.info(
                "request",
                method=scope.get("method", "WS"),
                path=scope["path"],
                status=answer.status,
                by=scope[GRANT].name if GRANT in scope else None,
                client=client,
                ms=round(seconds * 1000, 1),
                **({"ended": scope[ENDED]} if ENDED in scope else {}),
            )

    def refused(self, status: int, client: str, request_id: str) -> None:
        """Count and tell a request that was none: not HTTP, too large, or never finished."""
        self.meter.answered(route=NO_ROUTE, method="", status=status, seconds=None)
        _diagnostics.info("request refused", status=status, client=client, request_id=request_id)

    async def _admit(self, scope: Scope, receive: Receive, answer: "_Answer") -> Receive | None:
        """Return how the app gets the request, or None: it has been answered, or the client has left."""
        refusal = self.proxies.seen_through(scope) or self._foreign(scope)
        if refusal is None:
            if (origin := only(scope, b"origin")) in self.origins and origin is not None:
                answer.headers += [(b"access-control-allow-origin", origin.encode()), *_CORS]
                if scope.get("method") == "OPTIONS" and only(scope, b"access-control-request-method"):
                    await _preflight(answer)
                    return None
            refusal = self._stranger(scope) or oversized(scope, self.body_bytes_max)
        if refusal is None and scope["type"] == "http" and has_body(scope):
            body = await whole_body(scope, receive, self.body_bytes_max)
            if body is None:
                return None
            if not isinstance(body, Problem):
                return replayed(body, receive)
            refusal = body
        if refusal is None:
            return receive
        await send_problem(scope, receive, answer, refusal)
        return None

    def _foreign(self, scope: Scope) -> Problem | None:
        """Return why this request is not for us, or from somebody else's web page."""
        host = only(scope, b"host")
        if host is None:
            return Problem(400, "The request needs exactly one Host.")
        host = host.lower()
        if not (host in self.authorities or host in self.hosts or _name(host) in self.hosts):
            return Problem(421, f"The host {host!r} is not ours; TAILRACE_HOSTS can name it.")
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        if not origins:
            return None
        origin = only(scope, b"origin") or "several origins"
        scheme, _, authority = origin.lower().partition("://")
        fits = scheme == "https" or (scheme == "http" and not is_secure(scope))
        same = fits and authority == host
        ours = fits and scheme == "http" and authority in self.authorities
        if same or ours or origin in self.origins:
            return None
        return Problem(403, f"The origin {origin!r} may not call us; TAILRACE_ORIGINS can name it.")

    def _stranger(self, scope: Scope) -> Problem | None:
        """Return why the caller is not let in, or put into the scope what they were granted."""
        try:
            grant = self.credentials.grant(scope)
        except (Unauthenticated, Throttled) as error:
            return problem_of(error)
        if grant is not None:
            scope[GRANT] = grant
        return None


class _Answer:
    """A ``send`` that adds ``headers`` to the first message, and knows the ``status`` of that."""

    __slots__ = ("_send", "headers", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.headers = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
        self.status: int | None = None

    # Not async: it runs for every frame of every stream, and hands on the awaitable as it is.
    def __call__(self, message: Message) -> Awaitable[None]:
        """Send ``message``."""
        if self.status is None:
            self.status = message.get("status", 101)
            message["headers"] = [*message.get("headers", ()), *self.headers]
            self.headers = []
        return self._send(message)


def _name(authority: str) -> str:
    """Return ``host`` of ``host`` or ``host:port``; an address in brackets keeps them."""
    name, colon, port = authority.rpartition(":")
    return name if colon and port.isdigit() else authority


async def _preflight(send: Send) -> None:
    """Answer a browser that asks, for an origin we know, what it may send."""
    headers = [
        (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, DELETE"),
        (b"access-control-allow-headers", b", ".join(_CORS_HEADERS)),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
