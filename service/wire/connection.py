"""The WebSocket of one client, as RFC 6455 has it, and when nothing of it has to be remembered.

It leans on the inside of websockets' ``ServerProtocol`` (tests/wire/test_uvicorn.py guards the names).
"""

# ruff: noqa: D102  most methods are websockets' own, with their meaning

from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN, State
from websockets.server import ServerProtocol
from websockets.typing import LoggerLike


class Connection(ServerProtocol):
    """A client's WebSocket, without extensions: a compressed frame could not be joined with stored bytes.

    ``between_messages``: it is open, and nothing but whole messages has come and gone, so that a new one in
    the state OPEN goes on just the same. ``first``: ready frames that follow the answer to the handshake in
    the same write.
    """

    def __init__(self, message_bytes_max: int, logger: LoggerLike, state: State) -> None:
        self._between_frames = state is OPEN
        self.first: bytes | memoryview = b""
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
