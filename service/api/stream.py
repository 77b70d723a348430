"""The stream of a run: one URL and one cursor over WebSocket, server-sent events and NDJSON.

A refusal is answered before anything is accepted, with its real HTTP status and problem+json.
"""

import asyncio
from functools import partial
from re import compile as pattern
from time import monotonic

import msgspec
from msgspec import Struct

from service.access import ANONYMOUS, EVERYTHING, Authentication, Grant
from service.api.asgi import Receive, Scope, Send, may_close, send_problem
from service.api.measured import ENDED
from service.api.owners import MaySee, sees_all
from service.api.patience import SHUTTING_DOWN, held
from service.api.peers import counted_address
from service.api.problems import Problem, Refused, problem_of
from service.api.readers import Reader, Readers
from service.api.rights import GRANT, demand
from service.api.stream_form import EVENT_STREAM, NDJSON, form_for
from service.api.stream_http import KEEPALIVE_INTERVAL_S, send_away, stream_over_http
from service.api.stream_live import LiveRuns
from service.api.stream_meter import LEFT, StreamMeter
from service.api.stream_query import StreamQuery, header, parse_stream_query
from service.api.stream_read import Reading, open_reading
from service.api.stream_ws import Opening, stream_over_websocket
from service.api.turns import Turns
from service.errors import Forbidden, NotFound, TailraceError, Throttled
from service.log import Log
from service.ops.limits import Rate
from service.segments import Segments

OFFERED = (EVENT_STREAM, NDJSON, "Upgrade: websocket")

RETRY_AFTER_S = 5

_HEADERS = {"vary": "accept", "cache-control": "no-store"}
_RUN_ID = pattern(r"[A-Za-z0-9_-]{1,128}")


class StreamBounds(Struct, frozen=True):
    """How many streams there may be: in all (else 503), of one run, user or address (429); 0: any number.

    ``starts_per_minute``: of one user, and of one address. A user who is nobody, and this machine's own
    addresses, are not bounded by themselves.
    """

    watchers_max: int
    watchers_per_run_max: int
    watchers_per_user_max: int = 0
    watchers_per_address_max: int = 0
    starts_per_minute: int = 0


class StreamEndpoint:
    """An ASGI app for ``http`` and ``websocket`` scopes that carry ``path_params["run_id"]``.

    ``closing`` is set when the service shuts down, and its steps then have ``drain_timeout_s``. A reader that
    takes nothing for ``stall_timeout_s`` is closed with 4408. Who may not see a run is told that it is not
    there; who may no more is sent away within RECHECK_INTERVAL_S.
    """

    def __init__(
        self,
        log: Log,
        *,
        closing: asyncio.Event,
        bounds: StreamBounds,
        stall_timeout_s: float,
        drain_timeout_s: float = 0.0,
        segments: Segments | None = None,
        keepalive_interval_s: float = KEEPALIVE_INTERVAL_S,
        authentication: Authentication | None = None,
        may_see: MaySee = sees_all,
    ) -> None:
        self.log = log
        self.segments = segments
        self.closing = closing
        self.bounds = bounds
        self.stall_timeout_s = stall_timeout_s
        self.drain_timeout_s = drain_timeout_s
        self.keepalive_interval_s = keepalive_interval_s
        self.meter = StreamMeter()
        self.live = LiveRuns(log, self.meter)
        self.turns = Turns()
        self.readers = Readers()
        self._authentication = authentication
        self.may_see = may_see
        self._starts = Rate(bounds.starts_per_minute)

    async def run(self) -> None:
        """Push what is new to who has caught up, until the service shuts down; else each reads by itself.

        Then, or once they have no right to it any more, readers are told to go.
        """
        async with asyncio.TaskGroup() as group:
            live = group.create_task(self.live.run(self.closing))
            if self._authentication is not None:
                checks = group.create_task(self.readers.recheck(self._authentication))
                live.add_done_callback(lambda _: checks.cancel())
            await self.closing.wait()
            self.readers.end_all()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client until its run, its interest or the service ends."""
        run_id = scope["path_params"]["run_id"]
        grant: Grant = scope.get(GRANT, EVERYTHING)
        address = counted_address(scope)
        refusal = self._refusal(scope, grant, address)
        if refusal is not None:
            await self._refuse(scope, receive, send, refusal)
            return
        with self.readers.one(run_id, _form_name(scope), grant=grant, address=address) as reader:
            how = LEFT
            try:
                # What an open stream is deep in, and what is held there, takes memory of every watcher.
                if scope["type"] == "websocket":
                    how = await stream_over_websocket(
                        scope, receive, send, await self._opening(scope, reader),
                        live=self.live,
                        reader=reader,
                        stall_timeout_s=self.stall_timeout_s,
                    )  # fmt: skip
                else:
                    how = await self._over_http(scope, receive, send, reader)
            except TailraceError as error:  # only ever before anything was accepted
                problem = problem_of(error)
                how = str(problem.status)
                await self._refuse(scope, receive, send, problem)
            finally:
                scope[ENDED] = how
                self.meter.over(reader.form, how, monotonic() - reader.began_at)

    def _refusal(self, scope: Scope, grant: Grant, address: str) -> Problem | None:
        if scope["type"] == "http" and scope["method"] != "GET":
            return Problem(405, "A stream is read with GET.", headers={"allow": "GET"})
        if scope["type"] == "http" and form_for(header(scope, b"accept")) is None:
            offered = ", ".join(OFFERED)
            return Problem(406, f"A stream is offered as {offered}.", extra={"offered": OFFERED})
        if self.closing.is_set():
            return SHUTTING_DOWN
        try:
            demand(grant, "read")
            self._check_bounds(grant, address)
        except (Forbidden, Throttled, Refused) as error:
            return problem_of(error)
        return None

    def _check_bounds(self, grant: Grant, address: str) -> None:
        readers, bounds = self.readers, self.bounds
        if len(readers) >= bounds.watchers_max:
            said = f"The service streams to {bounds.watchers_max} clients already."
            raise Refused(Problem(503, said, headers={"retry-after": str(RETRY_AFTER_S)}))
        user = "" if grant.name == ANONYMOUS else grant.name
        for whose, counter, key, most in (
            (f"{user!r}", readers.of_user, user, bounds.watchers_per_user_max),
            ("This address", readers.of_address, address, bounds.watchers_per_address_max),
        ):
            if key and most and counter[key] >= most:
                raise Throttled(f"{whose} has {most} streams already.", retry_after_s=RETRY_AFTER_S)
        for whose, key in ((f"{user!r}", f"user {user}"), ("This address", f"address {address}")):
            if not key.endswith(" ") and (wait_s := self._starts.take(key)):
                said = f"{whose} has begun {bounds.starts_per_minute} streams within a minute."
                raise Throttled(said, retry_after_s=wait_s)

    def _query(self, scope: Scope, reader: Reader) -> StreamQuery:
        query = parse_stream_query(scope["query_string"], header(scope, b"last-event-id"))
        if not _RUN_ID.fullmatch(reader.run_id):
            raise NotFound("run", reader.run_id)
        return query

    async def _opened(self, reader: Reader, query: StreamQuery) -> Reading:
        visible = partial(self._enters, reader)
        return await open_reading(
            self.log, reader.run_id, query, self.segments, turns=self.turns, visible=visible
        )

    async def _enters(self, reader: Reader, run_id: str) -> bool:
        """Tell whether the run is visible to ``reader``, and count it there. Raises Throttled.

        Not before: who may not see a run neither takes a place of its readers nor learns that there are none.
        """
        if not await self.may_see(reader.grant, run_id):
            return False
        if self.readers.of_run[run_id] >= self.bounds.watchers_per_run_max:
            said = f"This run has {self.bounds.watchers_per_run_max} streams already."
            raise Throttled(said, retry_after_s=RETRY_AFTER_S)
        self.readers.enter_run(reader)
        return True

    async def _opening(self, scope: Scope, reader: Reader) -> Reading | Opening:
        """Return the reading, or what opens it if the run may take its time."""
        query = self._query(scope, reader)
        if query.wait_s and not await self._is_there(reader):
            return partial(self._opened, reader, query.of_a_run_to_come())
        return await self._opened(reader, query)

    async def _is_there(self, reader: Reader) -> bool:
        head = await self.log.wait(f"run/{reader.run_id}", after=-2)
        return head >= 0 and await self.may_see(reader.grant, reader.run_id)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
        form = form_for(header(scope, b"accept")) if scope["type"] == "http" else None
        if problem is SHUTTING_DOWN and form is not None and form.status_is_final:
            await send_away(send, form, drain_timeout_s=self.drain_timeout_s)
        else:
            await _refuse(scope, receive, send, problem)

    async def _over_http(self, scope: Scope, receive: Receive, send: Send, reader: Reader) -> str:
        """Stream over HTTP; the response begins once the run exists, so that its status is true."""
        query = self._query(scope, reader)
        opening = self._opened(reader, query)
        reading = await (held(opening, receive, self.closing) if query.wait_s else opening)
        if reading is None:
            return LEFT
        form = form_for(header(scope, b"accept"))
        assert form is not None
        return await stream_over_http(
            scope, receive, send, reading, form,
            reader=reader,
            stall_timeout_s=self.stall_timeout_s,
            keepalive_interval_s=self.keepalive_interval_s,
            drain_timeout_s=self.drain_timeout_s,
            meter=self.meter,
        )  # fmt: skip


def _form_name(scope: Scope) -> str:
    if scope["type"] == "websocket":
        return "websocket"
    form = form_for(header(scope, b"accept"))
    return "sse" if form is not None and form.media_type == EVENT_STREAM else "ndjson"


async def _refuse(scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
    denial = "websocket.http.response" in (scope.get("extensions") or {})
    if scope["type"] == "websocket" and not denial and not may_close(scope, problem):
        await receive()
        await send({"type": "websocket.close"})  # all that such a server offers: a bare 403
        return
    problem = msgspec.structs.replace(problem, headers=problem.headers | _HEADERS)
    await send_problem(scope, receive, send, problem)
