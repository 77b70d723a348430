"""The WebSocket of one client, as RFC 6455 has it, and when nothing of it has to be remembered.

It leans on the inside of websockets' ``ServerProtocol`` (tests/wire/test_uvicorn.py guards the names).
"""

# ruff: noqa: D102  most methods are websockets' own, with their meaning

from collections.abc import Container

from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN, State
from websockets.server import ServerProtocol
from websockets.typing import LoggerLike

CONTROL_BYTES_MAX = 125  # of payload
CLOSE_BYTES_MAX = 2 + 4 + CONTROL_BYTES_MAX  # of a whole frame: header, mask, payload
NORMAL = 1000  # the code of those who do not repeat ours

_CLOSE = b"\x88"


class Connection(ServerProtocol):
    """A client's WebSocket, without extensions: a compressed frame could not be joined with stored bytes.

    ``between_messages``: it is open, and nothing but whole messages has come and gone, so that a new one in
    the state OPEN goes on just the same. ``first``: ready frames that follow the answer to the handshake in
    the same write.
    """

    def __init__(self, message_bytes_max: int, logger: LoggerLike, state: State) -> None:
        self._between_frames = state is OPEN
        self.first: bytes | memoryview = b""
        self._last = b""
        super().__init__(max_size=message_bytes_max, logger=logger, state=state)

    @property
    def between_messages(self) -> bool:
        between = self._between_frames and self.current_size is None and self.state is OPEN
        return between and not self.events and not self.writes

    def send_response(self, response: Response) -> None:
        super().send_response(response)
        if self.first:
            self.writes.append(bytes(self.first))
            self.first = b""
        self._between_frames = not self.reader.buffer

    def receive_data(self, data: bytes | bytearray) -> None:
        self._between_frames = False
        super().receive_data(data)

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PING and self.state is not OPEN:
            return  # the PONG would follow our close, which is the last frame of a connection
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # it may come between two fragments (§5.4); websockets answers 1002
        super().recv_frame(frame)
        self._between_frames = not self.reader.buffer

    def answered(self, data: bytes) -> bool:
        """Tell whether ``data``, behind what this was told before, ends with the client's close.

        For when the parser has failed, and nobody knows any longer where a frame begins.
        """
        self._last = (self._last + data[-CLOSE_BYTES_MAX:])[-CLOSE_BYTES_MAX:]
        asked = self.close_sent
        return ends_with_close(self._last, {NORMAL, asked.code if asked else NORMAL})


def ends_with_close(data: bytes, codes: Container[int]) -> bool:
    """Tell whether ``data`` ends with a close frame, masked or not, that has one of ``codes`` or none.

    What ends with any other bytes looks so once in some thirty thousand times.
    """
    begin = data.rfind(_CLOSE)
    while begin >= 0 and not _is_close(data[begin:], codes):
        begin = data.rfind(_CLOSE, 0, begin)
    return begin >= 0


def _is_close(frame: bytes, codes: Container[int]) -> bool:
    if len(frame) < 2:
        return False
    masked, size = frame[1] & 0x80, frame[1] & 0x7F
    begin = 6 if masked else 2
    if len(frame) != begin + size or size > CONTROL_BYTES_MAX:
        return False
    code = int.from_bytes(frame[begin : begin + 2], "big")
    if masked:
        code ^= int.from_bytes(frame[2:4], "big")
    return size == 0 or (size > 1 and code in codes)
