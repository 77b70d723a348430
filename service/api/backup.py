"""The route of backups: the whole log as it stands, an event a line, while everything else goes on.

It is read through the log's own ``read_all``, page by page. So there is no second connection to the file,
nothing holds up its writer or its checkpoints, no copy lies about here, and what is sent has passed its crc.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from time import time_ns
from typing import Any

import msgspec
import structlog
from litestar import post
from litestar.response import Stream
from msgspec import Struct

from service.access import Grant
from service.api.context import Context, context_of
from service.api.filters import as_cursor
from service.api.health import VERSION
from service.api.history import NDJSON
from service.api.patience import SHUTTING_DOWN
from service.api.problems import Problem, Refused, problem_of
from service.api.requests import AnyRequest, read_query
from service.api.rights import caller, needs
from service.domain.events import format_time
from service.errors import Conflict, Fault, InvalidInput, TailraceError
from service.log import Recorded
from service.log.copy import lines_of

BACKUPS_MAX = 2  # at once; further ones get 429
TOO_MANY = f"{BACKUPS_MAX} backups are under way already"
PAGE_EVENTS = 200  # under 1 ms of the loop
PIECE_BYTES = 1024 * 1024  # of events sent at once

_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
_diagnostics = structlog.get_logger("tailrace.backup")


class Opening(Struct, frozen=True, rename="camel"):
    """A backup's first line. It holds every event up to ``last_cursor``, behind the one called ``cursor``.

    Whatever was acknowledged before ``time`` is among them.
    """

    format: int
    cursor: int
    last_cursor: int
    time: str
    version: str


class Ending(Struct, frozen=True, rename="camel"):
    """A backup's last line; without it, something is missing."""

    end: int


class Backups:
    """Counts the backups that are under way."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one while the context lasts."""
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


@post("/backups", status_code=200, opt=needs("admin"))
async def back_up(request: AnyRequest) -> Stream:
    """Send every event up to the log's present end, or up to ``upto``; ``cursor`` goes on behind one."""
    query = read_query(request, cursor=as_cursor, upto=as_cursor)
    context = context_of(request)
    backups: Backups = request.app.state.backups
    if await request.body():
        raise InvalidInput([Fault("", "a backup takes no body")])
    if context.closing.is_set():
        raise Refused(SHUTTING_DOWN)
    if backups.count >= BACKUPS_MAX:
        raise Refused(Problem(429, f"{TOO_MANY}.", headers={"retry-after": "10"}))
    head = await context.log.wait(None, after=-1)
    after, upto = query.get("cursor", 0), query.get("upto", head)
    if not after <= upto <= head:
        said = f"The log ends at {head}: there is no way from {after} to {upto}."
        raise Conflict(said, cursor=after, lastCursor=head)
    _diagnostics.info("backup asked for", by=caller(request).name, cursor=after, last_cursor=upto)
    opening = Opening(1, after, upto, format_time(time_ns() // 1_000_000), VERSION)
    return Stream(_lines(context, backups, opening, caller(request)), media_type=NDJSON, headers=_HEADERS)


async def _lines(context: Context, backups: Backups, opening: Opening, grant: Grant) -> AsyncIterator[bytes]:
    """Yield the opening, the events and the ending, or a last line ``{"problem"}`` that says why not."""
    if backups.count >= BACKUPS_MAX:  # others came at the same moment
        yield b'{"problem":%b}\n' % Problem(503, f"{TOO_MANY}.").body()
        return
    with backups.one():
        yield _line(opening)
        try:
            async for lines in _pages(context, grant, opening.cursor, opening.last_cursor):
                yield lines
        except TailraceError as error:  # the status has long been sent
            _diagnostics.warning("backup failed", reason=str(error))
            yield b'{"problem":%b}\n' % problem_of(error).body()
            return
        yield _line(Ending(opening.last_cursor))
        _diagnostics.info("backup ends", last_cursor=opening.last_cursor)


async def _pages(context: Context, grant: Grant, after: int, upto: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    while after < upto:
        if context.closing.is_set():
            raise Refused(SHUTTING_DOWN)
        context.credentials.authentication.still_reads(grant)
        began = loop.time()
        page = await context.log.read_all(after=after, limit=PAGE_EVENTS)
        events = [event for event in page if event.position <= upto]
        assert events, "what lies before the log's end can be read"
        after = events[-1].position
        pieces = [lines_of(piece) for piece in _pieces(events)]
        busy_s = loop.time() - began
        for piece in pieces:
            yield piece
        await asyncio.sleep(busy_s)  # the loop is left to the others for as long as it was taken


def _pieces(events: Sequence[Recorded]) -> Iterator[Sequence[Recorded]]:
    """Cut ``events`` where PIECE_BYTES is passed: a page out of memory may hold hundreds of large ones."""
    start = size = 0
    for end, event in enumerate(events, 1):
        size += len(event.data)
        if size >= PIECE_BYTES or end == len(events):
            yield events[start:end]
            start, size = end, 0


def _line(document: Any) -> bytes:
    return msgspec.json.encode(document) + b"\n"
