"""What surrounds the body of an HTTP answer, bounded: aiohttp bounds one head, not their number."""

from functools import partial
from typing import Any

from aiohttp import ClientPayloadError, StreamReader, TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage

HEAD_BYTES_MAX = 256 * 1024  # until the final head has come whole, 1xx answers included
PIECE_BYTES = 8 * 1024  # of a head, between two looks at how much it has become
BYTES_PER_BODY_BYTE_MAX = 4  # received: less in chunks of two bytes; nobody sends smaller ones for long
FRAMING_BYTES_MAX = 1024 * 1024  # beyond that


class BoundedConnector(TCPConnector):
    """Makes connections that give up an answer whose framing has no end."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        kind: type[ResponseHandler] = _Answer
        self._factory = partial(kind, loop=self._loop)


class _Answer(ResponseHandler):
    """Feeds aiohttp's parser until the answer is whole; whatever comes unasked ends the connection."""

    _bytes = 0  # of the answer's head, then of what followed it
    _payload_of_final: StreamReader | None = None
    _refusal: HttpProcessingError | None = None

    def set_response_params(self, **params: Any) -> None:
        self._bytes = 0
        self._payload_of_final = None
        super().set_response_params(**params)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        message, payload = data
        if message.code >= 200 or message.code == 101:
            self._payload_of_final = payload
            self._bytes = 0
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        # The connection's end is reported too, and would say less.
        super().set_exception(self._refusal or exc, *cause)

    def data_received(self, data: bytes) -> None:
        if not (data and self._in_head()):
            self._body_received(data)
            return
        while data and self._in_head():
            piece, data = data[:PIECE_BYTES], data[PIECE_BYTES:]
            self._bytes += len(piece)
            super().data_received(piece)
            if self._exception is not None:
                return
            if self._in_head() and self._bytes > HEAD_BYTES_MAX:
                self._refusal = HttpProcessingError(message="the head has no end")
                self._give_up()
                self.set_exception(self._refusal)
                return
        if data:
            self._body_received(data)

    def _in_head(self) -> bool:
        return self._payload_of_final is None and self._parser is not None

    def _body_received(self, data: bytes) -> None:
        payload = self._payload_of_final
        if data and payload is not None and payload.is_eof() and not self._upgraded:
            self._give_up()
            return
        self._bytes += len(data)
        super().data_received(data)
        if payload is None or self._upgraded:
            return
        if self._bytes > BYTES_PER_BODY_BYTE_MAX * payload.total_bytes + FRAMING_BYTES_MAX:
            self._give_up()
            payload.set_exception(ClientPayloadError("there is far more framing than body"))

    def _give_up(self) -> None:
        self.force_close()
        if self.transport is not None:
            self.transport.abort()
