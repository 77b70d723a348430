"""The stream over a WebSocket: one JSON object per text frame, and a close that says why."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Any

import structlog
from msgspec import Struct

from service.api.asgi import Receive, Scope, Send, forget_request
from service.api.patience import SHUTTING_DOWN
from service.api.problems import problem_of
from service.api.race import first_of
from service.api.readers import Reader
from service.api.stream_control import Message, Narrator, Part
from service.api.stream_live import LiveRuns, Watcher
from service.api.stream_meter import LEFT
from service.api.stream_read import Reading
from service.errors import Damaged, LogUnavailable, TailraceError
from service.wire.allowance import CLIENT_FRAME_BYTES_MAX, Allowance
from service.wire.frames import text_frame
from service.wire.outgoing import EXTENSION
from service.wire.parking import PARKING, WOKEN, Parking

Opening = Callable[[], Awaitable[Reading]]

PROTOCOL = "tailrace.v2"  # the subprotocol that is echoed to who offers it: browsers insist on one of theirs

_diagnostics = structlog.get_logger("tailrace.stream")


class Close(Struct, frozen=True):
    """How a connection ends: a close code (product.md §2) and at most 123 bytes of reason."""

    code: int
    reason: str


class Now(Enum):
    """Where a client stands whose connection is not to be closed: it has read everything, or left."""

    LIVE = 1
    LEFT = 2


async def stream_over_websocket(
    scope: Scope,
    receive: Receive,
    send: Send,
    opening: Opening,
    *,
    live: LiveRuns,
    reader: Reader,
    stall_timeout_s: float,
) -> str:
    """Accept, send what the reading yields, and close; returns the close code, or LEFT.

    ``opening`` returns the reading, in its own time; what it raises becomes a close. ``reader`` says when
    to stop before the end. ``scope`` is left with little in it.
    """
    await receive()  # websocket.connect
    await _accept(scope, send)
    sender = Sender(send, opening, live, stall_timeout_s, _extension(scope, PARKING), reader)
    if (outgoing := _extension(scope, EXTENSION)) is not None:
        outgoing.stall_timeout_s = stall_timeout_s
        outgoing.stall_reason = sender.stall_reason
    del opening, outgoing  # as the rest of the request: all this would be held for each watcher, for hours
    forget_request(scope)
    while True:
        now: Close | Now = await first_of(_listen(receive), sender.catch_up(), _stopped(reader, sender))
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
                return LEFT
    if not isinstance(now, Close):
        return LEFT
    await send({"type": "websocket.close", "code": now.code, "reason": now.reason})
    return str(now.code)


async def _accept(scope: Scope, send: Send) -> None:
    offered = scope.get("subprotocols") or ()
    await send({"type": "websocket.accept", "subprotocol": PROTOCOL if PROTOCOL in offered else None})


def _extension(scope: Scope, name: str) -> Any:
    return (scope.get("extensions") or {}).get(name)


class Sender:
    """Sends a reading to the end. ``watcher`` knows behind which seq its client goes on.

    Where the connection has a ``parking``, ready frames are sent, many in one write, and the live edge
    is left to others. Any other server gets one message per event; one not taken in time is a stall.
    """

    __slots__ = (
        "_live", "_narrator", "_opening", "_reader", "_send", "_stall_timeout_s", "reading", "watcher",
    )  # fmt: skip

    reading: Reading

    def __init__(
        self,
        send: Send,
        opening: Opening,
        live: LiveRuns,
        stall_timeout_s: float,
        parking: Parking | None,
        reader: Reader,
    ) -> None:
        self.watcher = Watcher(-1, parking)
        self._narrator: Narrator | None = None
        self._opening: Opening | None = opening
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

    async def catch_up(self) -> Close | Now:
        """Send what there is; return how to close, or LIVE when others can go on for the client from here."""
        try:
            return await self._catch_up()
        except TimeoutError:
            return Close(4408, self.stall_reason())
        except OSError:
            return Now.LEFT  # its disconnect arrives at the reader as well
        except TailraceError as error:
            return self._close_for(error)
        except Exception:  # noqa: BLE001  the one place where our faults end
            _diagnostics.exception("stream failed", after=self.watcher.after)
            return Close(1011, f"something went wrong on our side; {self.resume()}")

    async def _catch_up(self) -> Close | Now:
        if self._opening is not None:
            self.reading = await self._opening()
            self._opening = None
            self.watcher.after = self.reading.after
            self._reader.begins(self.watcher, self.reading.head)
            self._narrator = Narrator(self.reading)
        assert self._narrator is not None
        reading, parking = self.reading, self.watcher.parking
        while True:
            part = await self._narrator.next()
            if part is not None and parking is not None:
                texts, events = deque(part.events.text_frames()), len(part.events)
                said, part = part.said, None  # who is slow keeps no rows, which weigh twice what they hold
                await self._send_frames(parking, said, texts, events)
            elif part is not None:
                await self._send_texts(part)
            elif reading.seal is not None:
                return Close(1000, f"run {reading.seal.status} lastSeq={reading.seal.last_seq}")
            elif parking is not None and self._live.open and not self._narrator.bookmarks:
                self.watcher.after = reading.after
                return Now.LIVE
            else:
                await reading.more()

    async def _send_frames(
        self,
        parking: Parking,
        said: Sequence[Message],
        texts: deque[tuple[bytes | memoryview, int]],
        events: int,
    ) -> None:
        size = 0
        if said:
            joined = b"".join([text_frame(message.data) for message in said])
            await self._send({"type": "websocket.send", "preframed": joined})
        while texts:
            frames, self.watcher.after = texts.popleft()
            if not parking.push(frames):
                await self._send({"type": "websocket.send", "preframed": frames})
            size += len(frames)
        self._live.meter.delivered(events=events, size=size)

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
