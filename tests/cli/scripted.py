"""A service that answers as a script says: every way to lose a stream, and every answer to refuse one."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Response

from service.client import Backoff, Client

Turn = Callable[[ServerConnection], Awaitable[None]] | Response


class Scripted:
    """What a script needs: ``client`` of the service, ``asked`` (query after query), ``pauses`` it made."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.pauses: list[float] = []
        self.client: Client

    async def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)

    @property
    def after(self) -> list[str | None]:
        return [query.get("after") for query in self.asked]


@asynccontextmanager
async def scripted(*turns: Turn, backoff: Backoff = Backoff()) -> AsyncIterator[Scripted]:
    """Run a server that treats each connection as its turn says, the last turn for ever."""
    script = Scripted()

    def turn() -> Turn:
        return turns[min(len(script.asked), len(turns)) - 1]

    def answer(_: ServerConnection, request) -> Response | None:
        script.asked.append(
            {name: value for name, (value,) in parse_qs(urlsplit(request.path).query).items()}
        )
        now = turn()
        return now if isinstance(now, Response) else None

    async def converse(connection: ServerConnection) -> None:
        now = turn()
        assert not isinstance(now, Response)
        await now(connection)

    async with serve(converse, "127.0.0.1", 0, process_request=answer) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        script.client = Client(url, backoff=backoff._replace(sleep=script.sleep))
        yield script


def event(seq: int, type_: str = "step_log") -> str:
    return json.dumps({"runId": "r", "type": type_, "payload": {}, "seq": seq, "timestamp": "now"})


def said(type_: str, **payload: object) -> str:
    return json.dumps({"runId": "r", "type": f"stream.{type_}", "payload": payload})


async def hello(connection: ServerConnection, status: str = "running") -> None:
    query = parse_qs(urlsplit(connection.request.path).query)
    after = int(query["after"][0]) if "after" in query else None
    await connection.send(said("hello", status=status, lastSeq=9, after=after))


def ends(*seqs: int, last: int | None = None, status: str = "success") -> Turn:
    """Send events, and the run's end after event ``last``, by default the last of them."""

    async def converse(connection: ServerConnection) -> None:
        await hello(connection, status)
        for seq in seqs:
            await connection.send(event(seq))
        last_seq = seqs[-1] if last is None else last
        await connection.send(said("end", status=status, lastSeq=last_seq, hash=""))
        await connection.close(1000, f"run {status} lastSeq={last_seq}")

    return converse


def closes(*seqs: int, code: int, reason: str = "") -> Turn:
    """Send events, then close."""

    async def converse(connection: ServerConnection) -> None:
        await hello(connection)
        for seq in seqs:
            await connection.send(event(seq))
        if code == 1005:
            connection.transport.write(b"\x88\x00")  # a close frame without a code
            await connection.wait_closed()
        await connection.close(code, reason)

    return converse


def cut(*seqs: int) -> Turn:
    """Send events, then go away without a word."""

    async def converse(connection: ServerConnection) -> None:
        await hello(connection)
        for seq in seqs:
            await connection.send(event(seq))
        connection.transport.close()

    return converse


def denies(status: int, detail: str, **headers: str) -> Response:
    body = json.dumps({"detail": detail}).encode()
    return Response(status, "No", Headers({"content-length": str(len(body)), **headers}), body)
