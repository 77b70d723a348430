"""The stream as the body of a response that lasts as long as the run, in a form of stream_form.py."""

import asyncio
from collections.abc import Iterable

import structlog

from service.api.asgi import Receive, Scope, Send
from service.api.patience import SHUTTING_DOWN
from service.api.problems import problem_of
from service.api.race import first_of
from service.api.readers import Reader
from service.api.stream_control import Narrator, Part
from service.api.stream_form import Form
from service.api.stream_meter import LEFT, StreamMeter, left
from service.api.stream_read import Reading
from service.errors import TailraceError
from service.wire.outgoing import EXTENSION, PIECE_BYTES_MAX, Outgoing

KEEPALIVE_INTERVAL_S = 15.0  # of silence, after which a few bytes keep proxies from closing the connection
FAREWELL_TIMEOUT_S = 2.0  # for the last bytes at a shutdown, to a reader that may not read

_NEVER_STORED = [(b"vary", b"accept"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]

_diagnostics = structlog.get_logger("tailrace.stream")


async def stream_over_http(
    scope: Scope,
    receive: Receive,
    send: Send,
    reading: Reading,
    form: Form,
    *,
    reader: Reader,
    stall_timeout_s: float,
    keepalive_interval_s: float,
    drain_timeout_s: float,
    meter: StreamMeter,
) -> str:
    """Send what ``reading`` yields, to the run's end; maybe 204 when a finished run has nothing left to send.

    Returns how it ended: ``end``, a status, or ``left``; before the run does if ``reader`` has to stop.
    Raises what the log raises before the response has begun.
    """
    outgoing: Outgoing | None = (scope.get("extensions") or {}).get(EXTENSION)
    if outgoing is not None:
        outgoing.stall_timeout_s = stall_timeout_s
    body = Body(send)
    reader.begins(reading, reading.head)
    last, how = b"", "end"
    beginning = form.begin(reading)
    narrator = Narrator(reading)
    first, something = await _begin(narrator)
    if not something and form.no_content:
        await send({"type": "http.response.start", "status": 204, "headers": _NEVER_STORED})
    else:
        headers = [(b"content-type", form.media_type.encode()), *_NEVER_STORED]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        last, how = await first_of(
            _listen(receive),
            _send_all(body, form, beginning, first, narrator, meter),
            _keep_alive(body, form, keepalive_interval_s),
            _stopped(reader, form, drain_timeout_s),
        )
    await _farewell(body, last, outgoing)
    return left(outgoing) if how == LEFT else how


async def send_away(send: Send, form: Form, *, drain_timeout_s: float) -> None:
    """Answer who comes while the service shuts down, in a ``form`` in which a status would be final."""
    headers = [(b"content-type", form.media_type.encode()), *_NEVER_STORED]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    body = form.shutdown(SHUTTING_DOWN, drain_timeout_s=drain_timeout_s)
    await send({"type": "http.response.body", "body": body, "more_body": False})


Last = tuple[bytes, str]  # the last bytes of a stream, and how it ended


class Body:
    """The response's body: one text after the other, each in pieces that the connection's bound can hold."""

    def __init__(self, send: Send) -> None:
        self.writes = 0
        self._send = send
        self._turn = asyncio.Lock()

    async def write(self, text: bytes | memoryview) -> None:
        """Send ``text``; returns once the connection has room for more."""
        async with self._turn:
            for start in range(0, len(text), PIECE_BYTES_MAX):
                piece = text[start : start + PIECE_BYTES_MAX]
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            self.writes += 1

    async def end(self, text: bytes) -> None:
        """Send ``text`` as the last."""
        await self._send({"type": "http.response.body", "body": text, "more_body": False})


async def _begin(narrator: Narrator) -> tuple[list[Part], bool]:
    """Return what comes first, and whether there is an event to send, or one may come."""
    first, over = [], False
    while (part := await narrator.next()) is not None:
        first.append(part)
        if part.events or not (over := over or await narrator.reading.over()):
            return first, True
    return first, narrator.reading.seal is None


async def _send_all(
    body: Body, form: Form, beginning: bytes, first: Iterable[Part], narrator: Narrator, meter: StreamMeter
) -> Last:
    reading = narrator.reading
    try:
        await body.write(beginning)
        for part in first:
            await _write(body, form, part, meter)
        while True:
            following = await narrator.next()
            if following is not None:
                await _write(body, form, following, meter)
            elif reading.seal is not None:
                break
            else:
                await reading.more()
    except Exception as error:  # noqa: BLE001  the one place where our faults end
        if not isinstance(error, TailraceError):
            _diagnostics.exception("stream failed", after=reading.after)
        problem = problem_of(error)
        return form.fault(problem), str(problem.status)
    return form.end(reading), "end"


async def _write(body: Body, form: Form, part: Part, meter: StreamMeter) -> None:
    if part.said:
        await body.write(b"".join(map(form.said, part.said)))
    size = 0
    for text, _ in form.events(part.events):
        await body.write(text)
        size += len(text)
    meter.delivered(events=len(part.events), size=size)


async def _keep_alive(body: Body, form: Form, interval_s: float) -> Last:
    while True:
        writes = body.writes
        await asyncio.sleep(interval_s)
        if writes == body.writes:
            await body.write(form.keepalive)


async def _listen(receive: Receive) -> Last:
    while (await receive())["type"] != "http.disconnect":
        pass
    return b"", LEFT


async def _stopped(reader: Reader, form: Form, drain_timeout_s: float) -> Last:
    problem = await reader.stop.reason()
    if problem is SHUTTING_DOWN:
        return form.shutdown(problem, drain_timeout_s=drain_timeout_s), str(problem.status)
    return form.fault(problem), str(problem.status)


async def _farewell(body: Body, last: bytes, outgoing: Outgoing | None) -> None:
    """End the response with ``last``; a reader that takes nothing even now is cut off."""
    try:
        async with asyncio.timeout(FAREWELL_TIMEOUT_S):
            await body.end(last)
    except TimeoutError:
        if outgoing is not None:
            outgoing.cut_off()
            await asyncio.sleep(0)  # the connection notices
