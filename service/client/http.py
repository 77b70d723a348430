"""The address of a service, and one request to it over HTTP, which needs no library and no thread."""

import asyncio
import errno
import json
import re
import ssl
from asyncio import StreamReader
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote, urlencode, urlsplit

from service.client.errors import Unreachable, refusal, stranger

PREFIX = "/api/v2"
REQUEST_TIMEOUT_S = 30.0  # for the whole answer

Query = Mapping[str, object]
Answer = tuple[int, str, dict[str, str], bytes]  # status, its reason, headers, body


class Address:
    """Where a service is: ``http://host:port``; a path in front of the API is kept.

    ``key`` is shown with each request, and to nobody that the service may send us on to. Raises ValueError
    for anything that is not such an address, or no key.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        plain = re.fullmatch(r"[!-~]+", url) and not (parts.query or parts.fragment or parts.username)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not plain:
            raise ValueError(f"{url!r} is not an address such as http://127.0.0.1:8080")
        if key is not None and not re.fullmatch(r"[!-~]+", key):
            raise ValueError("the key is empty, or has characters that no key has")
        self.url = url
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.secure = parts.scheme == "https"
        self.tls: ssl.SSLContext | bool | None = self.secure or None  # True: who answers must prove its name
        self.host = parts.hostname
        self.port = parts.port or (443 if self.secure else 80)
        self._base = parts.path.rstrip("/") + PREFIX

    @property
    def authority(self) -> str:
        """Return the host and, unless it is the scheme's own, the port, as a Host header says it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    def target(self, path: str, query: Query) -> str:
        """Return what a request line asks for; what is None in ``query`` is left out."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._base + path + (f"?{urlencode(given)}" if given else "")

    def websocket(self, path: str, query: Query) -> str:
        """Return the address of ``path`` for a WebSocket."""
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{self.target(path, query)}"


def segment(text: str) -> str:
    """Return ``text`` as one segment of a path. Raises ValueError for none: the path would be another one."""
    if not text:
        raise ValueError("an id has at least one character")
    return quote(text, safe="")


async def request(address: Address, method: str, target: str, body: object = None) -> bytes:
    """Return the body of the answer to one request; ``body`` (None: without one) is sent as JSON.

    Raises ValueError for what JSON cannot say, Refused, and Unreachable, after REQUEST_TIMEOUT_S at most.
    """
    data = b"" if body is None else json.dumps(body, allow_nan=False).encode()
    fields = ["Accept: application/json"]
    if body is not None:
        fields.append("Content-Type: application/json")
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            head = head_of(address, method, target, *fields, f"Content-Length: {len(data)}")
            status, reason, headers, answer = await _exchange(address, head + data)
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        raise Unreachable(f"{address.url} does not answer: {why(error)}") from error
    if status >= 400:
        raise refusal(status, reason, answer, headers.get("retry-after"))
    if status >= 300:  # the service sends nobody elsewhere
        raise stranger(address.url, f"{status} {reason}")
    return answer


@contextmanager
def understood(address: Address) -> Iterator[None]:
    """Read an answer within: one of another form than the service's raises Unreachable."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise stranger(address.url, "its answer is another one") from error


def head_of(address: Address, method: str, target: str, *fields: str) -> bytes:
    """Return the head of a request, with what every request says of itself and ``fields``."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {address.authority}"]
    lines += [f"{name}: {value}" for name, value in address.headers.items()]
    return "\r\n".join([*lines, *fields, "Connection: close", "\r\n"]).encode()


async def _exchange(address: Address, sent: bytes) -> Answer:
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=address.tls)
    try:
        writer.write(sent)
        return await _answer(reader)
    finally:
        writer.transport.abort()  # to close it would wait for the other side's part of TLS


async def answer_head(reader: StreamReader) -> tuple[int, str, dict[str, str]]:
    """Return the status, its reason, and the headers of an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.splitlines()
    _, status, reason = f"{first} ".split(" ", 2)
    fields = (line.partition(":") for line in lines)
    return int(status), reason.strip(), {name.lower(): value.strip() for name, _, value in fields}


async def _answer(reader: StreamReader) -> Answer:
    status, reason, headers = await answer_head(reader)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunks(reader)
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = await reader.read()
    return status, reason, headers, body


async def _chunks(reader: StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readline()).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    return bytes(body)


def why(error: Exception) -> str:
    """Return in a few words why there was no answer."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, EOFError):
        return "the connection was lost in mid-answer"
    if f"[Errno {errno.ECONNREFUSED}]" in str(
        error
    ):  # asyncio says it as "Connect call failed", for each address
        return "connection refused"
    return str(error) or type(error).__name__
