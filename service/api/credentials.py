"""The credential of a request: a bearer token, a ticket for a stream, or the cookie of a session."""

from collections.abc import Collection

from service.access import ANONYMOUS, EVERYTHING, Authentication, Grant
from service.api.asgi import Scope, only, streamed_run
from service.api.peers import counted_address
from service.errors import Throttled, Unauthenticated
from service.ops.limits import Rate

COOKIE = "tailrace_session"
SECURE_COOKIE = "__Host-tailrace_session"  # no other host of the domain can set it (RFC 6265bis §4.1.3.2)
TICKET_PREFIX = "tailrace.ticket."  # before a ticket in Sec-WebSocket-Protocol
FAILURES_PER_MINUTE = 120  # wrong credentials of one address; those that are right are never refused for it
SESSIONS_PER_MINUTE = 60  # that one user, and one address, opens; and that they end

_NONE_GIVEN = "Credentials are needed: Authorization: Bearer KEY, or log in."


class Credentials:
    """Finds out what a request is granted. ``public``: methods and paths that need nothing."""

    def __init__(self, authentication: Authentication, public: Collection[tuple[str, str]]) -> None:
        self.authentication = authentication
        self.public = frozenset(public)
        self._failures = Rate(FAILURES_PER_MINUTE)
        self._opened, self._ended = Rate(SESSIONS_PER_MINUTE), Rate(SESSIONS_PER_MINUTE)

    def grant(self, scope: Scope) -> Grant | None:
        """Return what the request is granted, None if it needs nothing. Raises Unauthenticated, Throttled."""
        method = scope["method"] if scope["type"] == "http" else ""
        if ("GET" if method == "HEAD" else method, scope["path"]) in self.public:
            return None
        if not self.authentication.required:
            return EVERYTHING
        try:
            return self.found(scope)
        except Unauthenticated as error:
            self.failed(scope)
            raise error from None

    def failed(self, scope: Scope) -> None:
        """Count a wrong credential. Raises Throttled once an address has given too many."""
        address = counted_address(scope)
        if address and (wait_s := self._failures.take(address)):
            raise Throttled("Too many wrong credentials from this address.", retry_after_s=wait_s)

    def found(self, scope: Scope) -> Grant:
        """Return what the credential in ``scope`` grants. Raises Unauthenticated, also if there is none."""
        if any(name == b"authorization" for name, _ in scope["headers"]):
            return self.authentication.bearer(_bearer(only(scope, b"authorization")))
        run_id = streamed_run(scope) if scope["type"] == "websocket" else None
        if run_id is not None and (ticket := _ticket(scope)) is not None:
            return self.authentication.redeem(ticket, run_id)
        return self.session(scope)

    def session(self, scope: Scope) -> Grant:
        """Return what the cookie in ``scope`` grants. Raises Unauthenticated, also if there is none."""
        session = _cookie(scope) if _of_our_own_pages(scope) else None
        if session is None:
            raise Unauthenticated(_NONE_GIVEN)
        return self.authentication.session(session)

    def open_session(self, scope: Scope, grant: Grant) -> tuple[str, int]:
        """Return the text of a new session that grants the same, and its seconds. Raises Throttled."""
        _take(self._opened, scope, grant, "logged in")
        return self.authentication.open_session(grant)

    async def end_session(self, scope: Scope, grant: Grant) -> None:
        """End the session whose cookie came along, even if the caller showed another credential besides.

        Raises Throttled, Unauthenticated, OSError.
        """
        if grant.session_id is None and grant.name != ANONYMOUS:
            try:
                grant = self.session(scope)
            except Unauthenticated:
                return
        if grant.session_id is not None:
            _take(self._ended, scope, grant, "logged out")
            await self.authentication.end_session(grant)


def _take(rate: Rate, scope: Scope, grant: Grant, done: str) -> None:
    counted = [(f"{grant.name!r}", f"user {grant.name}")]
    if address := counted_address(scope):
        counted.append(("This address", f"address {address}"))
    for whose, key in counted:
        if wait_s := rate.take(key):
            said = f"{whose} has {done} {SESSIONS_PER_MINUTE} times within a minute."
            raise Throttled(said, retry_after_s=wait_s)


def is_secure(scope: Scope) -> bool:
    """Tell whether the client speaks TLS, to us or to a proxy that we trust."""
    return scope.get("scheme") in {"https", "wss"}


def cookie_name(scope: Scope) -> str:
    """Return the name of the session's cookie on this kind of connection."""
    return SECURE_COOKIE if is_secure(scope) else COOKIE


def _bearer(value: str | None) -> str:
    scheme, _, token = (value or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("Authorization must say once: Bearer KEY.")
    return token.strip()


def _ticket(scope: Scope) -> str | None:
    offered = [each for each in scope.get("subprotocols") or () if each.startswith(TICKET_PREFIX)]
    return offered[0].removeprefix(TICKET_PREFIX) if len(offered) == 1 else None


def _of_our_own_pages(scope: Scope) -> bool:
    """Tell whether nothing says that a page of another origin asks: those are to show a key or a ticket.

    SameSite keeps other sites from using a session, but a site is all ports, and all hosts of a domain.
    """
    if only(scope, b"sec-fetch-site") not in {None, "same-origin", "none"}:
        return False
    origin = only(scope, b"origin")
    if origin is None:
        return True
    scheme, _, authority = origin.lower().partition("://")
    return authority == (only(scope, b"host") or "").lower() and (scheme == "https" or not is_secure(scope))


def _cookie(scope: Scope) -> str | None:
    """Return the session's cookie if it is there exactly once."""
    name = cookie_name(scope)
    lines = [value.decode("latin-1") for key, value in scope["headers"] if key == b"cookie"]
    pairs = (pair.strip().partition("=") for line in lines for pair in line.split(";"))
    values = [value for key, _, value in pairs if key == name]
    return values[0] if len(values) == 1 else None
