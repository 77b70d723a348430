"""The three ways to watch a run, as a client sees them: event by event, and how it ended."""

import json
from contextlib import ExitStack
from http.client import HTTPException, HTTPResponse
from typing import ClassVar, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.proxies.proxy import AUTHORIZATION, TIMEOUT_S, Proxy


class Cut(Exception):
    """The connection ended, and the run had not; ``str`` says what the client was told."""


class Way:
    """A run's stream behind the event ``after``: ``Over…(proxy, run_id, after=3)``."""

    def next(self) -> bytes | None:
        """Return the next event, None once the run is over and all has come. Raises Cut."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def until(self, message: str) -> list[bytes]:
        """Return what comes up to the line ``message`` of a command, with that."""
        events = []
        while (event := self.next()) is not None:
            events.append(event)
            if json.loads(event)["payload"].get("message") == message:
                return events
        raise AssertionError(f"no {message!r} in {events}")

    def rest(self) -> list[bytes]:
        return list(iter(self.next, None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def path_of(run_id: str, **query: object) -> str:
    given = "&".join(f"{name}={value}" for name, value in query.items() if value is not None)
    return f"/api/v2/workflows/runs/{run_id}/stream?{given}"


class OverWebSocket(Way):
    def __init__(self, proxy: Proxy, run_id: str, **query: object) -> None:
        self._stack = ExitStack()
        opening = connect(
            f"{'wss' if proxy.tls else 'ws'}://{proxy.authority}{path_of(run_id, **query)}",
            sock=proxy.connected(),
            ssl=proxy.tls,
            additional_headers={"Authorization": AUTHORIZATION},
            ping_interval=None,  # the service's PINGs must do
            compression=None,
            open_timeout=TIMEOUT_S,
        )
        self.client = self._stack.enter_context(opening)

    def next(self) -> bytes | None:
        try:
            return self.client.recv(TIMEOUT_S, decode=False)
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code == 1000:
                return None
            raise Cut(str(closed.rcvd)) from None

    def close(self) -> None:
        self._stack.close()


class OverHttp(Way):
    accept: ClassVar[str]

    def __init__(self, proxy: Proxy, run_id: str, after: int | None = None) -> None:
        self.response = self._sent(proxy, run_id, after)
        assert self.response.status == 200, self.response.read()
        assert self.response.headers["content-type"] == self.accept
        self._text = b""

    def _sent(self, proxy: Proxy, run_id: str, after: int | None) -> HTTPResponse:
        return proxy.sent("GET", path_of(run_id, after=after), accept=self.accept)

    def line(self) -> bytes:
        """Return the next line, empty where the body has its proper end."""
        while b"\n" not in self._text:
            try:
                data = self.response.read1(65536)  # readline takes a torn body for a whole one
            except (ConnectionError, HTTPException) as error:
                raise Cut(repr(error)) from None
            if not data:
                assert self._text == b"", "the body ends within a line"
                return b""
            self._text += data
        line, newline, self._text = self._text.partition(b"\n")
        return line + newline

    def close(self) -> None:
        self.response.close()


class OverServerSentEvents(OverHttp):
    """As a browser does it: comes back with Last-Event-ID."""

    accept = "text/event-stream"

    def _sent(self, proxy: Proxy, run_id: str, after: int | None) -> HTTPResponse:
        last = "" if after is None else str(after)
        return proxy.sent("GET", path_of(run_id), accept=self.accept, last_event_id=last)

    def next(self) -> bytes | None:
        name, seq, data = b"message", b"", b""
        while (line := self.line()) != b"\n" or not data:
            if not line:
                raise Cut("the body ended")
            field, _, value = line.removesuffix(b"\n").partition(b": ")
            match field:
                case b"event":
                    name = value
                case b"id":
                    seq = value
                case b"data":
                    data = value
        if name == b"end":
            assert self.line() == b"", "nothing comes behind the end"
            return None
        assert (name, int(seq)) == (b"message", json.loads(data)["seq"])
        return data


class OverLines(OverHttp):
    accept = "application/x-ndjson"

    def next(self) -> bytes | None:
        while (line := self.line()) == b"\n":
            pass
        if line.startswith(b'{"problem"'):
            raise Cut(line.decode())
        return line.removesuffix(b"\n") or None


WAYS = (OverWebSocket, OverServerSentEvents, OverLines)
