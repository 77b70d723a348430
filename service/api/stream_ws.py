"""The stream over a WebSocket: one JSON object per text frame, and a close that says why."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import Any

import structlog
from msgspec import Struct

from service.api.asgi import Receive, Scope, Send, forget_request, subprotocol
from service.api.patience import SHUTTING_DOWN
from service.api.problems import problem_of
from service.api.race import first_of
from service.api.readers import Reader
from service.api.stream_control import Narrator, Part
from service.api.stream_live import LiveRuns, Watcher
from service.api.stream_meter import left
from service.api.stream_read import Reading
from service.errors import Damaged, LogUnavailable, TailraceError
from service.wire.allowance import CLIENT_FRAME_BYTES_MAX, Allowance
from service.wire.frames import Frames
from service.wire.outgoing import EXTENSION, PIECE_BYTES_MAX, STALLED, Outgoing
from service.wire.parking import PARKING, WOKEN, Parking

Opening = Callable[[], Awaitable[Reading]]

_diagnostics = structlog.get_logger("tailrace.stream")


class Close(Struct, frozen=True):
    """How a connection ends: a close code (asyncapi.py tells them) and at most 123 bytes of reason."""

    code: int
    reason: str


class Now(Enum):
    """Where a client stands whose connection is not to be closed: it reads, has read everything, or left."""

    BEHIND = 1
    LIVE = 2
    LEFT = 3


async def stream_over_websocket(
    scope: Scope,
    receive: Receive,
    send: Send,
    opening: Reading | Opening,
    *,
    live: LiveRuns,
    reader: Reader,
    stall_timeout_s: float,
) -> str:
    """Accept, send what the reading yields, and close; returns the close code, or ``left``.

    ``opening``: the reading, or what returns it in its own time; what that raises becomes a close. ``reader``
    says when to stop before the end. ``scope`` is left with little in it.
    """
    await receive()  # websocket.connect
    sender = Sender(send, opening, live, stall_timeout_s, _extension(scope, PARKING), reader)
    outgoing: Outgoing | None = _extension(scope, EXTENSION)
    if outgoing is not None:
        outgoing.stall_timeout_s = stall_timeout_s
        outgoing.stall_reason = sender.stall_reason
    del opening  # as the rest of the request: all this would be held for each watcher, for hours
    now = await sender.begin()
    await _accept(scope, send, sender)
    forget_request(scope)
    while now is Now.BEHIND:
        now = await first_of(_listen(receive), sender.catch_up(), _stopped(reader, sender))
        if now is Now.LIVE and reader.stop.is_set():
            now = await _stopped(reader, sender)
        if now is not Now.LIVE:
            break
        if sender.park():
            try:
                message = await receive()
            finally:
                sender.unpark()
            if message["type"] != WOKEN:
                return left(outgoing)
        now = Now.BEHIND
    if not isinstance(now, Close):
        return left(outgoing)
    await send({"type": "websocket.close", "code": now.code, "reason": now.reason})
    return str(now.code)


async def _accept(scope: Scope, send: Send, sender: "Sender") -> None:
    answer = {"type": "websocket.accept", "subprotocol": subprotocol(scope)}
    await send(answer | sender.first())


def _extension(scope: Scope, name: str) -> Any:
    return (scope.get("extensions") or {}).get(name)


class Sender:
    """Sends a reading to the end. ``watcher`` knows behind which seq its client goes on.

    Where the connection has a ``parking``, ready frames are sent, many in one write, and the live edge
    is left to others. Any other server gets one message per event; one not taken in time is a stall.
    """

    __slots__ = (
        "_live", "_narrator", "_opening", "_reader", "_rest", "_send", "_stall_timeout_s", "reading",
        "watcher",
    )  # fmt: skip

    reading: Reading

    def __init__(
        self,
        send: Send,
        opening: Reading | Opening,
        live: LiveRuns,
        stall_timeout_s: float,
        parking: Parking | None,
        reader: Reader,
    ) -> None:
        self.watcher = Watcher(-1, parking)
        self._narrator: Narrator | None = None
        self._opening: Reading | Opening | None = opening
        self._rest: Rest | None = None
        self._live = live
        self._send = send
        self._stall_timeout_s = stall_timeout_s
        self._reader = reader

    def stall_reason(self) -> str:
        """Return what a reader that takes nothing is told."""
        return f"no progress for {self._stall_timeout_s:g} s; {self.resume()}"

    def resume(self) -> str:
        """Return how a client that received everything so far goes on."""
        after = self.watcher.after
        return f"resume with after={after}" if after >= 0 else "nothing was sent yet"

    def park(self) -> bool:
        """Have what is new pushed to the client, until it is woken; not if there is more to read already."""
        if not self._live.park(self.watcher, self.reading.stream, self.reading.where):
            return False
        self._reader.parked = self.watcher
        return True

    def unpark(self) -> None:
        """Go on from where the client stands by now."""
        assert self._narrator is not None
        self._reader.parked = None
        self._live.leave(self.watcher)
        self._narrator.moved_to(self.watcher.after)

    async def begin(self) -> Close | Now:
        """Read what comes first, if the reading is there already; return how to close if that cannot be."""
        return await self._told(self._begin())

    def first(self) -> dict[str, memoryview]:
        """Return what our answer takes along, so that it travels in the same write."""
        if self._rest is None or len(self._rest.frames[0].piece()) > PIECE_BYTES_MAX:
            return {}
        return {"preframed": self._taken(self._rest.frames[0])}

    async def catch_up(self) -> Close | Now:
        """Send what there is; return how to close, or LIVE when others can go on for the client from here."""
        return await self._told(self._catch_up())

    async def _told(self, sending: Coroutine[Any, Any, Close | Now]) -> Close | Now:
        try:
            return await sending
        except TimeoutError:
            return Close(STALLED, self.stall_reason())
        except OSError:
            return Now.LEFT  # its disconnect arrives at the reader as well
        except TailraceError as error:
            return self._close_for(error)
        except Exception:  # noqa: BLE001  the one place where our faults end
            _diagnostics.exception("stream failed", after=self.watcher.after)
            return Close(1011, f"something went wrong on our side; {self.resume()}")

    async def _begin(self) -> Close | Now:
        if self.watcher.parking is not None and isinstance(self._opening, Reading):
            part = await self._open(self._opening).next()
            if part is not None and (part.events or part.said):
                self._rest = Rest(part, self.watcher.after)
        return Now.BEHIND

    async def _catch_up(self) -> Close | Now:
        if self._opening is not None:
            self._open(self._opening if isinstance(self._opening, Reading) else await self._opening())
        assert self._narrator is not None
        reading, parking = self.reading, self.watcher.parking
        while True:
            if parking is not None and self._rest is not None:
                await self._send_frames(parking, self._rest)
                self._rest = None
            part = await self._narrator.next()
            if part is not None and parking is not None:
                self._rest, part = Rest(part, self.watcher.after), None
            elif part is not None:
                await self._send_texts(part)
            elif reading.seal is not None:
                return Close(1000, f"run {reading.seal.status} lastSeq={reading.seal.last_seq}")
            elif parking is not None and self._live.open and not self._narrator.bookmarks:
                self.watcher.after = reading.after
                return Now.LIVE
            else:
                await reading.more()

    def _open(self, reading: Reading) -> Narrator:
        self.reading = reading
        self._opening = None
        self.watcher.after = reading.after
        self._reader.begins(self.watcher, reading.head)
        self._narrator = Narrator(reading)
        return self._narrator

    async def _send_frames(self, parking: Parking, rest: "Rest") -> None:
        for frames in rest.frames:
            while frames:
                frames.at += parking.push_some(frames.left())
                if frames:  # the rest of what may have been cut, and what follows in the same piece
                    await self._send({"type": "websocket.send", "preframed": self._taken(frames)})
            self.watcher.after = frames.seqs[-1]
        self._live.meter.delivered(events=rest.events, size=rest.size)

    def _taken(self, frames: Frames) -> memoryview:
        """Return the next piece of ``frames``, which is as good as sent: from behind it a client goes on."""
        piece = frames.piece()
        frames.at += len(piece)
        after = frames.after()
        self.watcher.after = self.watcher.after if after is None else after
        return piece

    async def _send_texts(self, part: Part) -> None:
        for message in part.said:
            await self._send_text(message.data)
        for seq, data in part.events.payloads():
            await self._send_text(data)
            self.watcher.after = seq
            self._live.meter.delivered(events=1, size=len(data))

    async def _send_text(self, data: bytes) -> None:
        async with asyncio.timeout(self._stall_timeout_s):
            await self._send({"type": "websocket.send", "text": data.decode()})

    def _close_for(self, error: TailraceError) -> Close:
        match error:
            case Damaged():
                return Close(4500, f"event {error.seq} is damaged")
            case LogUnavailable():
                return Close(1013, f"the log is unavailable; {self.resume()}")
            case _:
                problem = problem_of(error)
                return Close(problem.close_code, problem.reason())


class Rest:
    """What has still to be sent of a part: ready frames, as rows weigh twice that, and a reader may be slow.

    ``after``: behind which seq the part begins. ``events`` and ``size`` are of all its events.
    """

    __slots__ = ("events", "frames", "size")

    def __init__(self, part: Part, after: int) -> None:
        frames = part.events.text_frames()
        self.events = len(part.events)
        self.size = len(frames)
        self.frames = [frames] if frames else []
        if part.said:
            self.frames.insert(0, Frames.of([said.data for said in part.said], [after] * len(part.said)))


async def _listen(receive: Receive) -> Close | Now:
    """Read and ignore what the client says, within its allowance, until it leaves."""
    allowance = Allowance(asyncio.get_running_loop().time)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return Now.LEFT
        said = message.get("text") or message.get("bytes") or b""
        if len(said) > CLIENT_FRAME_BYTES_MAX:
            return Close(1009, f"over {CLIENT_FRAME_BYTES_MAX} bytes")
        if not allowance.spend():
            return Close(1008, "too many messages; this stream does not listen")


async def _stopped(reader: Reader, sender: Sender) -> Close:
    problem = await reader.stop.reason()
    said = "shutting down" if problem is SHUTTING_DOWN else problem.detail.rstrip(".")
    return Close(problem.close_code, f"{said}; {sender.resume()}")
