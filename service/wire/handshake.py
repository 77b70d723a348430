"""What is wrong with a request for a WebSocket (RFC 6455 §4.2.1), in time for an answer like any other.

websockets would refuse the same with a plain text of its own, or say nothing at all.
"""

import base64
import binascii
from collections.abc import Iterable
from http import HTTPStatus

from websockets.exceptions import InvalidHeader
from websockets.headers import parse_connection, parse_subprotocol
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS

VERSION = b"13"
KEY_BYTES = 16

Headers = Iterable[tuple[bytes, bytes]]  # with lower-case names


def fault_of(method: str, url: bytes, headers: Headers) -> tuple[HTTPStatus, str] | None:
    """Return with which status and words the request has to be refused, None if it is a good one."""
    given: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        given.setdefault(name, []).append(value.strip())
    if method != "GET":
        return HTTPStatus.METHOD_NOT_ALLOWED, "A WebSocket is asked for with GET."
    if given.get(b"sec-websocket-version") != [VERSION]:
        return HTTPStatus.UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13."
    return _too_large(url, given) or _malformed(given)


def _too_large(url: bytes, given: dict[bytes, list[bytes]]) -> tuple[HTTPStatus, str] | None:
    """Look at what websockets does not read, however much HTTP may be said elsewhere."""
    if len(b"GET  HTTP/1.1\r\n") + len(url) > MAX_LINE_LENGTH:
        return HTTPStatus.REQUEST_URI_TOO_LONG, f"A WebSocket's path has at most {MAX_LINE_LENGTH} bytes."
    lines = [len(name) + len(b": \r\n") + len(value) for name, values in given.items() for value in values]
    if len(lines) > MAX_NUM_HEADERS or max(lines) > MAX_LINE_LENGTH:
        detail = f"A WebSocket's request has at most {MAX_NUM_HEADERS} headers of {MAX_LINE_LENGTH} bytes."
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail
    return None


def _malformed(given: dict[bytes, list[bytes]]) -> tuple[HTTPStatus, str] | None:
    bad = HTTPStatus.BAD_REQUEST
    if not _is_key(given.get(b"sec-websocket-key", [])):
        return bad, f"Sec-WebSocket-Key must be {KEY_BYTES} bytes in base64, once."
    if len(given[b"upgrade"]) > 1:
        return bad, "Upgrade must be websocket and nothing else."
    if len(given.get(b"origin", ())) > 1:
        return HTTPStatus.FORBIDDEN, "Origin must not be given twice."  # as to any request
    if b"transfer-encoding" in given or any(size != b"0" for size in given.get(b"content-length", ())):
        return bad, "A WebSocket's request has no body."
    try:
        for name, parse in (
            (b"connection", parse_connection),
            (b"sec-websocket-protocol", parse_subprotocol),
        ):
            for value in given.get(name, ()):
                parse(value.decode("latin-1"))
    except InvalidHeader as error:
        return bad, f"{error.name} is malformed."
    return None


def _is_key(given: list[bytes]) -> bool:
    try:
        return len(given) == 1 and len(base64.b64decode(given[0], validate=True)) == KEY_BYTES
    except binascii.Error:
        return False
