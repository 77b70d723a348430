"""The routes of history: stored events, page by page or as one download, their bytes never decoded again."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Literal, cast

from litestar import Response, get
from litestar.params import FromPath
from litestar.response import Stream
from msgspec import Raw, Struct

from service.access import Grant
from service.api.asgi import Receive
from service.api.context import Context, context_of
from service.api.filters import (
    LEVELS,
    RUN_TYPES,
    After,
    AuditFilter,
    as_after,
    as_cursor,
    as_types,
)
from service.api.patience import as_wait, held
from service.api.problems import Problem, Refused, problem_of
from service.api.requests import (
    LIMIT_DEFAULT,
    AnyRequest,
    answer,
    as_id,
    as_limit,
    as_time,
    checked_id,
    one_of,
    read_query,
)
from service.api.rights import caller, needs, own_run
from service.api.scan import Walk, collect, walk_log, walk_run, walk_streams
from service.api.stream_query import FILTER, StreamQuery, filter_of
from service.api.stream_read import open_reading, seal_of
from service.domain.events import RunComplete, RunStatus
from service.errors import Conflict, Fault, Forbidden, InvalidInput, TailraceError
from service.log import Log

JSON = "application/json"
NDJSON = "application/x-ndjson"
LOG_TYPES = frozenset({"step_log"})
_NEVER_STORED = {"cache-control": "no-store", "vary": "accept", "x-accel-buffering": "no"}


class EventPage(Struct, frozen=True, rename="camel"):
    """Events of one run as they are stored; ``next_cursor`` is the next page's ``after``.

    It is None when this page came to ``last_seq``, the run's newest event at the time of the request. A page
    may be empty and have a next one: as much of the run as one request may look at did not pass the filter.

    ``last_seq`` counts the seal that ends a run (``run_complete``), whether or not that passes. ``status`` is
    how the run stood then, None unless the page came there. Once it is success, failed or cancelled, nothing
    follows: stop asking. While it is queued or running, go on behind ``last_seq``.
    """

    data: list[Raw]
    limit: int
    next_cursor: int | None
    last_seq: int
    status: Literal["queued", "running"] | RunStatus | None


class AuditPage(Struct, frozen=True, rename="camel"):
    """Events of all runs in the order of writing; ``next_cursor`` is the next page's ``cursor``.

    It is None when this page came to ``last_cursor``, the log's end at the time of the request: what is
    written later is found from there on. A page may be empty and have a next one, as in EventPage.
    """

    data: list[Raw]
    limit: int
    next_cursor: int | None
    last_cursor: int


@get("/workflows/runs/{run_id:str}/events", opt=needs("read"))
async def list_events(request: AnyRequest, run_id: FromPath[str]) -> Response[bytes]:
    """Return a page of a run's events; the cursor, the filter and ``wait`` mean what they mean to its stream.

    With ``wait`` an empty page of a run that is not over is held until an event passes, at most so long.
    """
    query = read_query(request, after=as_after, limit=as_limit, **FILTER, wait=as_wait)
    context = context_of(request)
    asked = StreamQuery(query.get("after", After()), filter_of(query), query.get("wait", 0.0))
    page = partial(_page_of_run, context, checked_id(run_id, "run"), asked, caller(request))
    limit = query.get("limit", LIMIT_DEFAULT)
    if not asked.wait_s:
        return answer(await page(limit))
    receive = cast(Receive, request.receive)
    with context.held.one(caller(request).name):
        found = await held(page(limit), receive, context.closing)
    context.credentials.authentication.still_reads(caller(request))  # it may have been a long time
    return answer(found)


@get("/workflows/runs/{run_id:str}/logs", opt=needs("read"))
async def list_logs(request: AnyRequest, run_id: FromPath[str]) -> Response[bytes]:
    """Return a page of a run's log messages: of one step, of at least one level."""
    query = read_query(request, after=as_after, limit=as_limit, stepId=as_id, level=one_of(*LEVELS))
    asked = StreamQuery(query.get("after", After()), filter_of({"types": LOG_TYPES, **query}))
    limit = query.get("limit", LIMIT_DEFAULT)
    checked_id(run_id, "run")
    return answer(await _page_of_run(context_of(request), run_id, asked, caller(request), limit))


async def _page_of_run(
    context: Context, run_id: str, asked: StreamQuery, grant: Grant, limit: int
) -> EventPage:
    log = context.log
    stream = f"run/{run_id}"
    until = asyncio.get_running_loop().time() + asked.wait_s
    reading = await open_reading(log, run_id, asked, visible=partial(context.may_see, grant))
    after = reading.after
    while True:
        head = await log.wait(stream, after=-2)
        walk = walk_run(log, stream, after=after, head=head, passing=asked.where.passing)
        async with context.composing.of(grant.name):
            page = await collect(walk, after=after, head=head, limit=limit)
        status = None if page.next is not None else await _status(log, stream, head)
        goes_on = status in {"queued", "running"}
        if page.data or not goes_on or not await _grows(log, stream, head, until):
            return EventPage(page.data, limit, page.next, head, status)
        after = head


async def _status(log: Log, stream: str, head: int) -> Literal["queued", "running"] | RunStatus:
    """Return how a run stood when it had come to ``head``."""
    (last,) = await log.read(stream, after=head - 1, limit=1)
    if last.type == RunComplete.type:
        return seal_of(last).status
    return "running" if head > 0 else "queued"


async def _grows(log: Log, stream: str, head: int, until: float) -> bool:
    """Tell whether a run is longer than ``head`` before ``until``, in the loop's time."""
    if until <= asyncio.get_running_loop().time():
        return False
    try:
        async with asyncio.timeout_at(until):
            while await log.wait(stream, after=head) <= head:
                pass
    except TimeoutError:
        return False
    return True


@get("/events", opt=needs("read"))
async def audit(request: AnyRequest) -> Response[Any]:
    """Return events of all runs: a JSON page, or all up to the log's end as NDJSON.

    Who is no admin names a run of their own.
    """
    query = read_query(
        request, type=as_types, runId=as_id, workflowId=as_id, since=as_time, until=as_time,
        cursor=as_cursor, limit=as_limit, include=one_of("control"),
    )  # fmt: skip
    where = AuditFilter(
        types=query.get("type"),
        run_id=query.get("runId"),
        workflow_id=query.get("workflowId"),
        since=query.get("since"),
        until=query.get("until"),
        control="include" in query,
    )
    if where.types is not None and not where.control and (needing := sorted(where.types - RUN_TYPES)):
        raise InvalidInput([Fault("/query/type", f"{', '.join(needing)}: only with include=control")])
    if where.run_id is not None:
        await own_run(request, where.run_id)
    elif not caller(request).sees_all:
        raise Forbidden("Events of all runs are for admins; name a run of yours with runId.", right="admin")
    media_type = request.accept.best_match([JSON, NDJSON])
    if media_type is None:
        raise Refused(Problem(406, f"Events come as {JSON} or {NDJSON}."))
    context = context_of(request)
    after = query.get("cursor", 0)
    head = await context.log.wait(None, after=-1)
    if after > head:
        said = f"The log ends at {head}: there is no event {after} to continue after."
        raise Conflict(said, cursor=after, lastCursor=head)
    walk = await _walk(context, where, after, head)
    if media_type == NDJSON:
        lines = _lines(context, walk, query.get("limit"), caller(request))
        return Stream(lines, media_type=NDJSON, headers=_NEVER_STORED)
    limit = query.get("limit", LIMIT_DEFAULT)
    async with context.composing.of(caller(request).name):
        page = await collect(walk, after=after, head=head, limit=limit)
    return answer(AuditPage(page.data, limit, page.next, head), headers={"vary": "accept"})


async def _walk(context: Context, where: AuditFilter, after: int, head: int) -> Walk:
    if where.workflow_id is not None:
        await context.projections.caught_up()  # they know the workflow of every run up to the head
    passes = where.passes(context.projections.workflow_of)
    if where.run_id is None:
        return walk_log(context.log, after=after, head=head, types=where.types, passes=passes)
    streams = [f"run/{where.run_id}", f"signal/{where.run_id}"][: 2 if where.control else 1]
    return walk_streams(context.log, streams, after=after, head=head, passes=passes)


async def _lines(context: Context, walk: Walk, limit: int | None, grant: Grant) -> AsyncIterator[bytes]:
    """Yield ``{"cursor","event"}`` lines; where it cannot go on, a last line ``{"problem"}`` says why."""
    authentication = context.credentials.authentication
    try:
        async for stretch in walk:
            if context.closing.is_set():
                raise Refused(Problem(503, "The service is shutting down."))
            authentication.still_reads(grant)
            placed = stretch.events[:limit]
            if placed:
                yield b"".join(
                    [b'{"cursor":%d,"event":%b}\n' % (place, event.data) for place, event in placed]
                )
            if limit is not None:
                limit -= len(placed)
                if limit == 0:
                    return
    except TailraceError as error:  # the status has long been sent
        yield b'{"problem":%b}\n' % problem_of(error).body()
