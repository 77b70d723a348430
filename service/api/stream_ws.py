"""The stream over a WebSocket: one JSON object per text frame, and a close that says why."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import structlog
from msgspec import Struct

from service.api.asgi import Receive, Scope, Send
from service.api.problems import problem_of
from service.api.race import first_of
from service.api.stream_control import parts_of
from service.api.stream_read import Reading
from service.errors import Damaged, LogUnavailable, TailraceError
from service.wire.allowance import CLIENT_FRAME_BYTES_MAX, Allowance
from service.wire.frames import text_frame, text_frames
from service.wire.outgoing import EXTENSION, Outgoing

_diagnostics = structlog.get_logger("tailrace.stream")


class Close(Struct, frozen=True):
    """How a connection ends: a close code (product.md §2) and at most 123 bytes of reason."""

    code: int
    reason: str


async def stream_over_websocket(
    scope: Scope,
    receive: Receive,
    send: Send,
    opening: Callable[[], Awaitable[Reading]],
    *,
    closing: asyncio.Event,
    stall_timeout_s: float,
) -> None:
    """Accept, send what the reading yields, and close; returns when the client leaves, too.

    ``opening`` returns the reading, in its own time; what it raises becomes a close.
    """
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    outgoing: Outgoing | None = (scope.get("extensions") or {}).get(EXTENSION)
    sender = Sender(send, opening, stall_timeout_s)
    if outgoing is not None:
        outgoing.stall_timeout_s = stall_timeout_s
        outgoing.stall_reason = sender.stall_reason
        work = sender.send_frames()
    else:
        work = sender.send_texts()
    close = await first_of(_listen(receive), work, _shutdown(closing, sender))
    if close is not None:
        await send({"type": "websocket.close", "code": close.code, "reason": close.reason})


class Sender:
    """Sends a reading to the end; each way of sending returns how to close, None if the client left."""

    def __init__(self, send: Send, opening: Callable[[], Awaitable[Reading]], stall_timeout_s: float) -> None:
        self.sent_seq = -1
        self._opening = opening
        self._send = send
        self._stall_timeout_s = stall_timeout_s

    def stall_reason(self) -> str:
        """Return what a reader that takes nothing is told."""
        return f"no progress for {self._stall_timeout_s:g} s; {self.resume()}"

    def resume(self) -> str:
        """Return how a client that received everything so far goes on."""
        return f"resume with after={self.sent_seq}" if self.sent_seq >= 0 else "nothing was sent yet"

    async def send_frames(self) -> Close | None:
        """Send ready frames, many in one write: for a server that takes them."""
        return await self._until_over(self._send_frames)

    async def send_texts(self) -> Close | None:
        """Send one message per event: for any other server. One that is not taken in time is a stall."""
        return await self._until_over(self._send_texts)

    async def _send_frames(self, reading: Reading) -> None:
        async with aclosing(parts_of(reading)) as parts:
            async for part in parts:
                if part.said:
                    said = b"".join([text_frame(message.data) for message in part.said])
                    await self._send({"type": "websocket.send", "preframed": said})
                for frames, seq in text_frames(part.events):
                    self.sent_seq = seq
                    await self._send({"type": "websocket.send", "preframed": frames})

    async def _send_texts(self, reading: Reading) -> None:
        async with aclosing(parts_of(reading)) as parts:
            async for part in parts:
                for message in part.said:
                    await self._send_text(message.data)
                for event in part.events:
                    await self._send_text(event.data)
                    self.sent_seq = event.seq

    async def _send_text(self, data: bytes) -> None:
        async with asyncio.timeout(self._stall_timeout_s):
            await self._send({"type": "websocket.send", "text": data.decode()})

    async def _until_over(self, work: Callable[[Reading], Coroutine[Any, Any, None]]) -> Close | None:
        try:
            reading = await self._opening()
            self.sent_seq = reading.after
            await work(reading)
        except TimeoutError:
            return Close(4408, self.stall_reason())
        except OSError:
            return None  # the client left; its disconnect arrives at the reader as well
        except TailraceError as error:
            return self._close_for(error)
        except Exception:  # noqa: BLE001  the one place where our faults end
            _diagnostics.exception("stream failed", after=self.sent_seq)
            return Close(1011, f"something went wrong on our side; {self.resume()}")
        seal = reading.seal
        assert seal is not None
        return Close(1000, f"run {seal.status} lastSeq={seal.last_seq}")

    def _close_for(self, error: TailraceError) -> Close:
        match error:
            case Damaged():
                return Close(4500, f"event {error.seq} is damaged")
            case LogUnavailable():
                return Close(1013, f"the log is unavailable; {self.resume()}")
            case _:
                problem = problem_of(error)
                return Close(problem.close_code, problem.reason())


async def _listen(receive: Receive) -> Close | None:
    """Read and ignore what the client says, within its allowance, until it leaves."""
    allowance = Allowance(asyncio.get_running_loop().time)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return None
        said = message.get("text") or message.get("bytes") or b""
        if len(said) > CLIENT_FRAME_BYTES_MAX:
            return Close(1009, f"over {CLIENT_FRAME_BYTES_MAX} bytes")
        if not allowance.spend():
            return Close(1008, "too many messages; this stream does not listen")


async def _shutdown(closing: asyncio.Event, sender: Sender) -> Close:
    await closing.wait()
    return Close(1012, f"shutting down; {sender.resume()}")
