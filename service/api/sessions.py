"""The routes of credentials: log in and out with a browser, who am I, and tickets for streams."""

from typing import cast

import structlog
from litestar import Response, delete, get, post
from msgspec import Struct

from service.access import Grant
from service.api.asgi import PROTOCOL, Scope
from service.api.context import context_of
from service.api.credentials import TICKET_PREFIX, cookie_name, is_secure
from service.api.problems import Problem, Refused
from service.api.requests import AnyRequest, answer, id_fault, read_object, read_query, unknown_keys
from service.api.rights import ANY, PUBLIC, caller, needs
from service.domain.events import format_time
from service.errors import Fault, InvalidInput, Unauthenticated

CREDENTIAL_LENGTH_MAX = 8_192  # characters

_NEVER_STORED = {"cache-control": "no-store"}
_NOT_ENDED = Problem(
    503,
    "The session could not be ended: the file of keys cannot be written now.",
    headers={"retry-after": "5"},
)

_diagnostics = structlog.get_logger("tailrace.access")


class Session(Struct, frozen=True, rename="camel"):
    """Who calls, what they may do, and until when (None: no end)."""

    name: str
    rights: list[str]
    expires_at: str | None

    @classmethod
    def of(cls, grant: Grant) -> "Session":
        """Return the session of ``grant``."""
        expires_at = None if grant.expires_at is None else format_time(int(grant.expires_at * 1000))
        return cls(grant.name, sorted(grant.rights), expires_at)


class StreamTicket(Struct, frozen=True, rename="camel"):
    """A ticket for one stream of one run: ``new WebSocket(url, protocols)``. ``expires_in`` in ms."""

    run_id: str
    protocols: list[str]
    expires_in: int


@post("/session", status_code=200, opt=needs(PUBLIC))
async def log_in(request: AnyRequest) -> Response[bytes]:
    """Take a key, or a token, and answer with the cookie of a session that is worth the same."""
    read_query(request)
    document = await read_object(request)
    faults = unknown_keys(document, ("key",))
    key = document.get("key")
    if not isinstance(key, str) or not 1 <= len(key) <= CREDENTIAL_LENGTH_MAX:
        faults.append(Fault("/key", "must be a key or a token"))
    if faults:
        raise InvalidInput(faults)
    credentials = context_of(request).credentials
    scope = cast(Scope, request.scope)
    try:
        grant = credentials.authentication.bearer(str(key).strip())
    except Unauthenticated as error:
        credentials.failed(scope)
        raise error from None
    text, lifetime_s = credentials.open_session(scope, grant)
    return answer(
        Session.of(grant), headers={**_NEVER_STORED, "set-cookie": _cookie(scope, text, lifetime_s)}
    )


@get("/session", opt=needs(ANY))
async def who_am_i(request: AnyRequest) -> Response[bytes]:
    """Say who the caller is, and what they may do."""
    read_query(request)
    return answer(Session.of(caller(request)), headers=_NEVER_STORED)


@delete("/session", status_code=204, opt=needs(ANY))
async def log_out(request: AnyRequest) -> Response[None]:
    """End the session that the cookie stands for, everywhere, and take the cookie back."""
    read_query(request)
    scope = cast(Scope, request.scope)
    try:
        await context_of(request).credentials.end_session(scope, caller(request))
    except OSError as error:
        _diagnostics.error("a session could not be ended", reason=str(error))
        raise Refused(_NOT_ENDED) from None
    headers = {**_NEVER_STORED, "set-cookie": _cookie(scope, "", 0)}
    return Response(None, status_code=204, headers=headers)


@post("/stream-tickets", status_code=201, opt=needs("read"))
async def issue_ticket(request: AnyRequest) -> Response[bytes]:
    """Sell a ticket for one stream of one run, good once and for half a minute.

    Whether the run is there, and the caller's, is for the stream to say: it may be waited for.
    """
    read_query(request)
    document = await read_object(request)
    faults = unknown_keys(document, ("runId",))
    run_id = document.get("runId")
    if fault := id_fault(run_id, "/runId"):
        faults.append(fault)
    if faults:
        raise InvalidInput(faults)
    ticket = context_of(request).credentials.authentication.ticket(caller(request), str(run_id))
    protocols = [PROTOCOL, TICKET_PREFIX + ticket.text]
    body = StreamTicket(ticket.run_id, protocols, int(ticket.lifetime_s * 1000))
    return answer(body, 201, _NEVER_STORED)


def _cookie(scope: Scope, text: str, lifetime_s: int) -> str:
    secure = "; Secure" if is_secure(scope) else ""
    return f"{cookie_name(scope)}={text}; Path=/; Max-Age={lifetime_s}; HttpOnly; SameSite=Strict{secure}"
