"""uvicorn's HTTP protocol with our limits: a request has a deadline and a size, a stuck reader an end."""

# ruff: noqa: D102  most methods are uvicorn's or asyncio's own, with their meaning

import asyncio
import secrets
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar, cast

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.wire.connections import Connections
from service.wire.handshake import VERSION, fault_of
from service.wire.outgoing import CHECKS_PER_TIMEOUT, EXTENSION, STALLED, Outgoing
from service.wire.rounds import rounds
from service.wire.unread import Unread

HEADER_BYTES_MAX = 32 * 1024  # request line and headers
HEADER_TIMEOUT_S = 10.0  # from the connection, or the request's first byte, to the end of its headers
REQUEST_TIMEOUT_S = 60.0  # to the end of its body
PIPELINED_REQUESTS_MAX = 16
CLOSE_TIMEOUT_S = 5.0  # a client that takes nothing for so long after the end is cut off
CHECK_INTERVAL_MAX_S = 2.5

REFUSED_WITH = {  # instead of no more than connection: close
    HTTPStatus.METHOD_NOT_ALLOWED: b"allow: GET\r\nconnection: close\r\n",
    HTTPStatus.UPGRADE_REQUIRED: (
        b"upgrade: websocket\r\nsec-websocket-version: %b\r\nconnection: close, upgrade\r\n" % VERSION
    ),
    HTTPStatus.TOO_MANY_REQUESTS: b"retry-after: 5\r\nconnection: close\r\n",
}


class RequestTooLargeError(Exception):
    """The request line and the headers are over ``HEADER_BYTES_MAX``."""


class HttpProtocol(HttpToolsProtocol):
    """Drops who never finishes a request (408), sends too much of one (431) or never reads its answer.

    Refuses who has too many connections (429), as ``counted`` counts them. ``unread``: large answers that are
    not taken, of all connections; too many of them are cut off.
    """

    counted: ClassVar[Connections | None] = None
    unread: ClassVar[Unread] = Unread()
    header_timeout_s = HEADER_TIMEOUT_S
    request_timeout_s = REQUEST_TIMEOUT_S
    close_timeout_s = CLOSE_TIMEOUT_S

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.outgoing: Outgoing = cast(Outgoing, None)
        self._fed_bytes = 0
        self._header_bytes = 0
        self._in_headers = True
        self._in_request = True  # the first request is due from the connection on
        self._began_at = self.loop.time()
        self._ending_since: float | None = None
        self._answering: RequestResponseCycle | None = None
        self._refusal = HTTPStatus.BAD_REQUEST
        self._taken = ""  # of the connections
        self._turn: int | None = None  # of the rounds, when it is looked at next

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.outgoing = Outgoing(transport, self.loop.time)
        self._check_later()
        if self.counted is not None:
            taken = self.counted.take(self.client[0] if self.client else "")
            self._taken = taken or ""
            if taken is None:
                self._refuse(HTTPStatus.TOO_MANY_REQUESTS, "This address has too many connections already.")

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread.waits(self.outgoing)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread.taken(self.outgoing)

    def connection_lost(self, exc: Exception | None) -> None:
        self.unread.taken(self.outgoing)
        self._stop_checking()
        self._leave()
        super().connection_lost(exc)
        # uvicorn tells the request that came last, not the one that is being answered before it.
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _leave(self) -> None:
        if self.counted is not None:
            self.counted.leave(self._taken)
            self._taken = ""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        if cycle.scope["http_version"] < "1.1":
            app = partial(_without_chunks, app, cycle, self.outgoing)
        super()._start_asgi_task(cycle, app)

    def handle_websocket_upgrade(self) -> None:
        if self.parser.get_http_version() != "1.1":
            self._refuse(HTTPStatus.BAD_REQUEST, "A WebSocket needs HTTP/1.1.")
            return
        fault = fault_of(self.scope["method"], self.url, self.headers)
        if fault is not None:
            self._refuse(*fault)
            return
        self._stop_checking()
        self._leave()
        super().handle_websocket_upgrade()
        self.parser = cast(Any, None)  # it holds this object, which else would wait for a garbage collection

    # The request

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if not self._in_request:
            self._request_began()
        self._fed_bytes += len(data)
        super().data_received(data)
        # The parser reports a header once it is whole: one that never ends shows only here.
        if self._in_headers and self._fed_bytes > HEADER_BYTES_MAX and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        if not self._in_request:
            self._request_began()
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self.outgoing}  # type: ignore[dict-item]

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if len(self.pipeline) >= PIPELINED_REQUESTS_MAX:
            raise RequestTooLargeError
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_request = False
        super().on_message_complete()

    def _request_began(self) -> None:
        self._in_request = self._in_headers = True
        self._fed_bytes = self._header_bytes = 0
        self._began_at = self.loop.time()

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > HEADER_BYTES_MAX:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise RequestTooLargeError  # the parser turns it into an HttpParserError: send_400_response

    # Refusals

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal, msg)

    def _refuse(self, status: HTTPStatus, detail: str = "") -> None:
        """Answer a request that has no application yet, unless that would land inside another answer."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self.outgoing.cut_off()
            return
        problem = {"type": "about:blank", "title": status.phrase, "status": status.value}
        body = msgspec.json.encode(problem | ({"detail": detail} if detail else {}))
        request_id = secrets.token_hex(8)
        head = b"content-type: application/problem+json\r\ncontent-length: %d\r\nx-request-id: %s\r\n%s\r\n"
        more = REFUSED_WITH.get(status, b"connection: close\r\n")
        self.transport.write(STATUS_LINE[status] + head % (len(body), request_id.encode(), more) + body)
        self.transport.close()
        self.refused(status.value, self.client[0] if self.client else "", request_id)

    def refused(self, status: int, address: str, request_id: str) -> None:
        """Hear of a request that no application has seen; ``request_id`` is in its answer. For subclasses."""

    # Deadlines

    def _check_later(self) -> None:
        shortest = min(self.header_timeout_s, self.close_timeout_s, self.outgoing.stall_timeout_s)
        delay = min(CHECK_INTERVAL_MAX_S, shortest / CHECKS_PER_TIMEOUT)
        self._turn = rounds().later(self, delay, self._turn)

    def _stop_checking(self) -> None:
        if self._turn is not None:
            rounds().leave(self, self._turn)

    def check(self) -> None:
        """Give up on a client that does not finish its request, or takes nothing of its answer."""
        now = self.loop.time()
        moved_at = self.outgoing.moved_at()
        if self.transport.is_closing():
            self._ending_since = self._ending_since or now
            if now - max(self._ending_since, moved_at) >= self.close_timeout_s:
                self.outgoing.cut_off()
        elif now - moved_at >= self.outgoing.stall_timeout_s:
            self.outgoing.gave_up = STALLED
            self.outgoing.cut_off()
        elif self._in_request and now - self._began_at >= self._allowed_s():
            self._expire()
        self._check_later()

    def _allowed_s(self) -> float:
        return self.header_timeout_s if self._in_headers else self.request_timeout_s

    def _expire(self) -> None:
        if self._fed_bytes == 0:
            self.transport.close()  # connected, and never asked for anything
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def shutdown(self) -> None:
        """Finish answers under way; a request that has not arrived in full is not waited for."""
        if self._in_request:
            self.transport.close()
        else:
            super().shutdown()


async def _without_chunks(
    app: Any, cycle: RequestResponseCycle, outgoing: Outgoing, scope: Any, receive: Any, _send: Any
) -> None:
    """Answer HTTP/1.0, which knows no chunks (RFC 9112 §6.1): what tells no length ends with the connection.

    So nothing but a reset tells such a client that the answer is not whole.
    """
    cycle.keep_alive = False
    endless = False

    async def send(message: Any) -> None:
        nonlocal endless
        if message["type"] == "http.response.start":
            endless = not any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if endless:
                cycle.chunked_encoding = False  # uvicorn chooses only while it is None
        elif endless:
            cycle.expected_content_length = len(message.get("body", b""))  # each piece is what it was to be
        await cycle.send(message)

    try:
        await app(scope, receive, send)
    finally:
        if endless and not cycle.response_complete and not cycle.disconnected:
            outgoing.cut_off()
