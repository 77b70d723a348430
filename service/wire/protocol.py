"""uvicorn's WebSocket protocol with our limits: bounded bytes in flight, liveness, an end to every close.

It leans on the inside of ``WebSocketsSansIOProtocol`` (uvicorn is pinned; tests/wire/test_uvicorn.py guards
the names): what uvicorn lacks is a write of ready frames, and giving up on a client that takes nothing.
"""

# ruff: noqa: D102  most methods are uvicorn's or asyncio's own, with their meaning

import asyncio
from codecs import utf_8_decode
from collections.abc import Coroutine
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CONNECTING, OPEN, State
from websockets.server import ServerProtocol

from service.wire.allowance import CLIENT_FRAME_BYTES_MAX, Allowance
from service.wire.connection import Connection
from service.wire.http_protocol import HttpProtocol
from service.wire.outgoing import CHECKS_PER_TIMEOUT, EXTENSION, PIECE_BYTES_MAX, STALLED, Outgoing
from service.wire.parking import PARKING, WOKEN
from service.wire.rounds import rounds
from service.wire.slim import Flag, Mailbox

__all__ = ["EXTENSION", "HttpProtocol", "StreamProtocol"]

CLOSE_TIMEOUT_S = 5.0  # a client that takes nothing for so long after a close is cut off
CHECK_INTERVAL_MAX_S = 5.0
FEED_BYTES_MAX = 4 * 1024  # parsed at once: tiny frames are dear, and a flood is noticed between two feeds

_NOTHING = memoryview(b"")
_PING = b"\x89\x00"

# What uvicorn's own has in its dict, save ``conn``.
_OF_UVICORN = (
    "app", "app_state", "asgi_version", "client", "close_sent", "close_timeout", "close_timer", "config",
    "connections", "curr_msg_data_type", "default_headers", "disconnected", "frames", "handshake_complete",
    "handshake_initiated", "initial_response", "last_ping_rtt", "logger", "loop", "pending_ping_payload",
    "ping_interval", "ping_sent_at", "ping_timeout", "ping_timer", "pong_timer", "queue", "read_paused",
    "request", "response", "root_path", "scheme", "scope", "server", "tasks", "transport", "writable",
)  # fmt: skip


class StreamProtocol(WebSocketsSansIOProtocol):
    """Sends ``{"type": "websocket.send", "preframed": bytes}`` as it is, besides the usual messages.

    What a client sends is dropped here, so its application only ever receives connect and disconnect.

    Nearly all connections are idle, nearly all the time: one keeps its attributes in slots, where a dict of
    as many names takes four times as much, and has a ``conn`` only while that knows something.
    """

    __slots__ = (
        *_OF_UVICORN,
        *("_allowance", "_conn", "_early", "_ending_since", "_pinged_at", "_pong_owed_since", "_rest"),
        *("_turn", "_unfinished", "outgoing"),
    )
    close_timeout_s = CLOSE_TIMEOUT_S
    message_bytes_max = CLIENT_FRAME_BYTES_MAX

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._conn: Connection | None = self._connection(CONNECTING)
        self.frames = cast(Any, ())  # uvicorn's, for messages that we drop
        self.queue = cast(Any, Mailbox())
        self.writable = cast(Any, Flag())
        self.writable.set()
        self.outgoing: Outgoing = cast(Outgoing, None)
        self._allowance: Allowance | None = None  # of a client that has said something lately
        self._early: bytearray | None = None  # frames that came before our answer to the handshake
        self._rest = _NOTHING  # of a frame too large for one write; nothing may come in between
        self._unfinished = b""  # the character that a frame of the client's text broke off in
        self._pinged_at = 0.0
        self._pong_owed_since: float | None = None
        self._ending_since: float | None = None
        self._turn: int | None = None  # of the rounds, when it is looked at next

    @property
    def conn(self) -> Connection:
        """Return the state of the WebSocket, which is begun again where nothing of it had to be kept."""
        if self._conn is None:
            self._conn = self._connection(OPEN)
        return self._conn

    @conn.setter
    def conn(self, made_by_uvicorn: ServerProtocol) -> None:
        """Take none but our own."""

    def _connection(self, state: State) -> Connection:
        return Connection(self.message_bytes_max, self.logger, state)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.outgoing = Outgoing(self.transport, self.loop.time)
        self._check_later()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_checking()
        self._rest = _NOTHING  # what is left of this object waits for a garbage collection
        super().connection_lost(exc)

    # What the client sends

    def data_received(self, data: bytes) -> None:
        self._pong_owed_since = None  # whatever arrives proves that somebody is there
        if self._early is not None:
            self._keep_early(data)
            return
        for start in range(0, len(data), FEED_BYTES_MAX):
            if self.conn.parser_exc is not None:
                break
            super().data_received(data[start : start + FEED_BYTES_MAX])
        if self.conn.parser_exc is not None:
            if self.conn.answered(data):  # nothing of it is under way: the end of the socket is no reset
                self.transport.close()
        elif self.conn.handshake_exc is not None and not self.handshake_complete:
            self._refuse_handshake()
        elif self._conn is not None and self._conn.between_messages:
            self._conn = None

    def _keep_early(self, data: bytes) -> None:
        """Keep what a client did not wait with (§4.1): a PONG before our answer would be no HTTP."""
        assert self._early is not None
        if len(self._early) + len(data) > FEED_BYTES_MAX:
            self.outgoing.cut_off()
        else:
            self._early += data

    def handle_events(self) -> None:
        for event in self.conn.events_received():
            if isinstance(event, Request):
                self.handle_connect(event)
            elif isinstance(event, Frame):
                self._handle_frame(event)

    def _handle_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self._finish_frame()
            self.handle_close(frame)
        elif self.close_sent:
            return
        elif not self._spend():
            self._close(1008, "too many frames; this stream does not listen")
        elif frame.opcode is Opcode.PING and not self._rest:
            self.handle_ping()  # within a large frame the PONG waits in the connection's own buffer
        elif frame.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            self._drop(frame)

    def _spend(self) -> bool:
        """Count a frame; tell whether the client may still say something."""
        if self._allowance is None:
            self._allowance = Allowance(self.loop.time)
        return self._allowance.spend()

    def _drop(self, frame: Frame) -> None:
        """Forget it; text that is not UTF-8 is refused with the first frame that shows it."""
        if frame.opcode is not Opcode.CONT:
            self.curr_msg_data_type = "text" if frame.opcode is Opcode.TEXT else "bytes"
            self._unfinished = b""
        if self.curr_msg_data_type == "text":
            text = self._unfinished + frame.data
            try:
                _, decoded = utf_8_decode(text, "strict", frame.fin)
            except UnicodeDecodeError:
                self._close(1007, "text that is not UTF-8")
            else:
                self._unfinished = text[decoded:]

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[EXTENSION] = self.outgoing
            extensions[PARKING] = self
            self._early = bytearray()

    def handle_parser_exception(self) -> None:
        """Tell the client why (1002, 1007, 1009) and leave it time to read that."""
        close = self.conn.close_sent
        self._finish_frame()
        self._flush()
        if close is not None:
            self._ended(int(close.code), close.reason)
        else:
            self.transport.close()

    def _refuse_handshake(self) -> None:
        self.handshake_complete = self.close_sent = True
        self._flush()
        self.transport.close()

    def receive(self) -> Coroutine[Any, Any, Any]:
        return self.queue.get()  # and no more: uvicorn would have to go on reading, where we never stop

    # What the application sends

    async def send(self, message: Any) -> None:
        frames = message.get("preframed", b"")
        if frames and self.handshake_complete:
            await self._send_frames(frames)
        elif message["type"] == "websocket.close" and self.handshake_complete:
            self._close(message.get("code", 1000), message.get("reason") or "")
        else:
            self.conn.first = frames
            await super().send(message)
            if self.handshake_complete:
                # An open stream may be so for days: what its request said is the application's to keep.
                self.request = self.response = self.scope = cast(Any, None)
                self.server = self.client = None
                if self._conn is not None and self._conn.between_messages:
                    self._conn = None
                early, self._early = self._early, None
                if early and not self.close_sent:
                    self.data_received(bytes(early))
            if self.initial_response is not None and self.close_sent:
                self.handshake_complete = True  # refused: an answer like any other, not an error to report

    async def _send_frames(self, frames: bytes) -> None:
        self._rest = memoryview(frames)
        while self._rest:
            await self.writable.wait()
            if self.disconnected or self.close_sent or self.transport.is_closing():
                self._rest = _NOTHING  # it was not begun: nothing may follow a close
                raise ClientDisconnected
            self._rest = self._rest[self.outgoing.write_now(self._rest) :]
            piece, self._rest = self._rest[:PIECE_BYTES_MAX], self._rest[PIECE_BYTES_MAX:]
            if piece:
                self.transport.write(piece)
        self._rest = _NOTHING  # even an empty view would keep all the bytes
        self._flush()

    def push(self, frames: bytes | memoryview) -> bool:
        """Write ``frames`` at once, or return False: the client has enough on its way, or is leaving."""
        if self._rest or self.close_sent or len(frames) > PIECE_BYTES_MAX or self.transport.is_closing():
            return False
        sent = self.outgoing.write_now(frames)
        if sent == len(frames):
            return True
        if not sent and not self.writable.is_set():
            return False
        self.transport.write(memoryview(frames)[sent:])
        return True

    def push_some(self, frames: memoryview) -> int:
        """Give the kernel what it takes of ``frames`` and return how much; the caller sends the rest."""
        if self._rest or self.close_sent or self.transport.is_closing():
            return 0
        return self.outgoing.write_now(frames)

    def wake(self) -> None:
        """Give the application, which waits in ``receive``, a message of our own."""
        self.queue.put_nowait(cast(Any, {"type": WOKEN}))

    def _finish_frame(self) -> None:
        """Write what is left of a large frame, so that a control frame may follow it."""
        self.transport.write(self._rest)
        self._rest = _NOTHING

    def _flush(self) -> None:
        if self._conn is not None and (output := b"".join(self._conn.data_to_send())):
            self.transport.write(output)

    # Liveness

    def start_keepalive(self) -> None:
        self._pinged_at = self.loop.time()

    def _check_later(self) -> None:
        timeouts = (self.ping_interval, self.ping_timeout, self.outgoing.stall_timeout_s)
        shortest = min(timeout for timeout in timeouts if timeout)
        if self._ending_since is not None:
            shortest = min(shortest, self.close_timeout_s)
        delay = min(CHECK_INTERVAL_MAX_S, shortest / CHECKS_PER_TIMEOUT)
        self._turn = rounds().later(self, delay, self._turn)

    def _stop_checking(self) -> None:
        if self._turn is not None:
            rounds().leave(self, self._turn)

    def check(self) -> None:
        """Give up on a client that takes nothing, or says nothing, or is leaving and does not go."""
        now = self.loop.time()
        moved_at = self.outgoing.moved_at()
        if self.close_sent or self.transport.is_closing():
            self._check_ending(now, moved_at)
        elif self.handshake_complete and now - moved_at >= self.outgoing.stall_timeout_s:
            self._close(STALLED, self.outgoing.stall_reason())
        elif self.handshake_complete:
            self._check_alive(now, moved_at)
        self._check_later()

    def _check_alive(self, now: float, moved_at: float) -> None:
        """PING every interval; a PONG is owed from when our buffer was empty, or last moved, after it."""
        if self._allowance is not None and self._allowance.over:
            self._allowance = None
        if self._pong_owed_since is not None and self.outgoing.unsent():
            self._pong_owed_since = max(self._pong_owed_since, moved_at)
        owed_since = self._pong_owed_since
        if self.ping_timeout and owed_since is not None and now - owed_since >= self.ping_timeout:
            self._close(1011, f"no PONG for {self.ping_timeout:g} s")
        elif self.ping_interval and now - self._pinged_at >= self.ping_interval and self._drained():
            self._pinged_at = now
            self.transport.write(_PING)
            self._pong_owed_since = owed_since or now

    def _drained(self) -> bool:
        return not self._rest and self.transport.get_write_buffer_size() == 0

    # The end

    def shutdown(self) -> None:
        """Close 1012; clients that take it leave at once, the others are cut off in a few seconds."""
        if not self.handshake_complete:
            self.send_500_response()
            self.transport.close()
        elif not self.close_sent:
            self._close(1012, "shutting down")

    def _close(self, code: int, reason: str) -> None:
        if self.close_sent or self.transport.is_closing():
            return
        self._finish_frame()
        try:
            self.conn.send_close(code, reason)
        except InvalidState:
            return
        self._flush()
        self._ended(code, reason)

    def _ended(self, code: int, reason: str) -> None:
        """Wait for the client's own close: closing the socket under unread bytes would reset it."""
        self.close_sent = True
        self.outgoing.gave_up = code
        self._ending_since = self.loop.time()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        # uvicorn closes the socket when the application returns, unless this timer is set.
        self.close_timer = self.loop.call_later(self.close_timeout_s, self.check)

    def _check_ending(self, now: float, moved_at: float) -> None:
        if self._ending_since is None:
            self._ending_since = now
        if now - max(self._ending_since, moved_at if self.outgoing.unsent() else 0.0) < self.close_timeout_s:
            return
        if self.outgoing.unsent():
            self.outgoing.cut_off()
        else:
            self.transport.close()
