"""The stream of a run: one URL and one cursor over WebSocket, server-sent events and NDJSON.

A refusal is answered before anything is accepted, with its real HTTP status and problem+json.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from re import compile as pattern

import msgspec

from service.api.asgi import Receive, Scope, Send, may_close, send_problem
from service.api.patience import SHUTTING_DOWN, held
from service.api.problems import Problem, problem_of
from service.api.stream_form import EVENT_STREAM, NDJSON, form_for
from service.api.stream_http import KEEPALIVE_INTERVAL_S, stream_over_http
from service.api.stream_live import LiveRuns
from service.api.stream_query import StreamQuery, header, parse_stream_query
from service.api.stream_read import Reading, open_reading
from service.api.stream_ws import stream_over_websocket
from service.errors import NotFound, TailraceError
from service.log import Log
from service.segments import Segments

OFFERED = (EVENT_STREAM, NDJSON, "Upgrade: websocket")

_HEADERS = {"vary": "accept", "cache-control": "no-store"}
_RUN_ID = pattern(r"[A-Za-z0-9_-]{1,128}")


class StreamEndpoint:
    """An ASGI app for ``http`` and ``websocket`` scopes that carry ``path_params["run_id"]``.

    ``closing`` is set when the service shuts down. Over ``watchers_max`` clients in all a request is
    refused with 503, over ``watchers_per_run_max`` of one run with 429. A reader that takes nothing for
    ``stall_timeout_s`` is closed with 4408.
    """

    def __init__(
        self,
        log: Log,
        *,
        closing: asyncio.Event,
        watchers_max: int,
        watchers_per_run_max: int,
        stall_timeout_s: float,
        segments: Segments | None = None,
        keepalive_interval_s: float = KEEPALIVE_INTERVAL_S,
    ) -> None:
        self.log = log
        self.segments = segments
        self.closing = closing
        self.watchers_max = watchers_max
        self.watchers_per_run_max = watchers_per_run_max
        self.stall_timeout_s = stall_timeout_s
        self.keepalive_interval_s = keepalive_interval_s
        self.live = LiveRuns(log)
        self._watchers: Counter[str] = Counter()

    @property
    def watchers(self) -> int:
        """Return how many clients are being served."""
        return self._watchers.total()

    async def run(self) -> None:
        """Push what is new to who has caught up, until the service shuts down; else each reads by itself."""
        await self.live.run(self.closing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client until its run, its interest or the service ends."""
        run_id = scope["path_params"]["run_id"]
        refusal = self._refusal(scope, run_id)
        if refusal is not None:
            await _refuse(scope, receive, send, refusal)
            return
        with self._counted(run_id):
            try:
                await self._stream(scope, receive, send, run_id)
            except TailraceError as error:  # only ever before anything was accepted
                await _refuse(scope, receive, send, problem_of(error))

    def _refusal(self, scope: Scope, run_id: str) -> Problem | None:
        if scope["type"] == "http" and scope["method"] != "GET":
            return Problem(405, "A stream is read with GET.", headers={"allow": "GET"})
        if scope["type"] == "http" and form_for(header(scope, b"accept")) is None:
            offered = ", ".join(OFFERED)
            return Problem(406, f"A stream is offered as {offered}.", extra={"offered": OFFERED})
        if self.closing.is_set():
            return SHUTTING_DOWN
        if self.watchers >= self.watchers_max:
            return Problem(
                503,
                f"The service streams to {self.watchers_max} clients already.",
                headers={"retry-after": "5"},
            )
        if self._watchers[run_id] >= self.watchers_per_run_max:
            return Problem(
                429,
                f"This run has {self.watchers_per_run_max} clients already.",
                headers={"retry-after": "5"},
            )
        return None

    @contextmanager
    def _counted(self, run_id: str) -> Iterator[None]:
        self._watchers[run_id] += 1
        try:
            yield
        finally:
            self._watchers[run_id] -= 1
            if not self._watchers[run_id]:
                del self._watchers[run_id]

    async def _stream(self, scope: Scope, receive: Receive, send: Send, run_id: str) -> None:
        query = parse_stream_query(scope["query_string"], header(scope, b"last-event-id"))
        if not _RUN_ID.fullmatch(run_id):
            raise NotFound("run", run_id)
        if scope["type"] == "websocket":
            await self._over_websocket(scope, receive, send, run_id, query)
        else:
            await self._over_http(scope, receive, send, run_id, query)

    async def _over_websocket(
        self, scope: Scope, receive: Receive, send: Send, run_id: str, query: StreamQuery
    ) -> None:
        """Stream over a WebSocket that is accepted at once if the run may take its time."""
        reading: Reading | None = None
        if not query.wait_s or await self.log.wait(f"run/{run_id}", after=-2) >= 0:
            reading = await open_reading(self.log, run_id, query, self.segments)

        async def opening() -> Reading:
            return reading or await open_reading(self.log, run_id, query, self.segments)

        await stream_over_websocket(
            scope, receive, send, opening,
            live=self.live,
            closing=self.closing,
            stall_timeout_s=self.stall_timeout_s,
        )  # fmt: skip

    async def _over_http(
        self, scope: Scope, receive: Receive, send: Send, run_id: str, query: StreamQuery
    ) -> None:
        """Stream over HTTP; the response begins once the run exists, so that its status is true."""
        opening = open_reading(self.log, run_id, query, self.segments)
        reading = await (held(opening, receive, self.closing) if query.wait_s else opening)
        if reading is None:
            return
        form = form_for(header(scope, b"accept"))
        assert form is not None
        await stream_over_http(
            scope, receive, send, reading, form,
            closing=self.closing,
            stall_timeout_s=self.stall_timeout_s,
            keepalive_interval_s=self.keepalive_interval_s,
        )  # fmt: skip


async def _refuse(scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
    denial = "websocket.http.response" in (scope.get("extensions") or {})
    if scope["type"] == "websocket" and not denial and not may_close(scope, problem):
        await receive()
        await send({"type": "websocket.close"})  # all that such a server offers: a bare 403
        return
    problem = msgspec.structs.replace(problem, headers=problem.headers | _HEADERS)
    await send_problem(scope, receive, send, problem)
