"""A request over HTTP against every kind of answer, and none: read to the byte, or named as what it is."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from service.client import Client, Refused, Unreachable

TIMEOUT_S = 30.0


@asynccontextmanager
async def answers(answer: bytes, *, closes: bool = True):
    """Give a client of a server that answers this, and the list of what it was sent."""
    asked: list[bytes] = []
    conversations: list[asyncio.Task] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.append(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        headers = dict(line.split(": ") for line in head.decode().split("\r\n")[1:-2])
        asked.append(head + await reader.readexactly(int(headers["Content-Length"])))
        writer.write(answer)
        try:
            if not closes:
                await reader.read()
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            pass  # it left with something unread

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        yield Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/flows/"), asked
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.gather(*conversations)


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}',
        b'HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3;x=y\r\n{"a\r\n5\r\n": 1}\r\n0\r\n\r\n',
        b'HTTP/1.0 200\r\nX: y\r\n\r\n{"a": 1}',
    ],
    ids=["length", "chunks", "until closed"],
)
async def test_a_whole_answer_is_read(answer):
    async with answers(answer) as (client, _):
        assert await client.get("/x") == {"a": 1}


async def test_an_answer_with_a_length_is_not_waited_for_to_close():
    async with answers(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", closes=False) as (client, _):
        assert await client.get("/x") == {}


async def test_what_is_asked():
    accepted = b'{"runId":"mine","status":"queued"}'
    async with answers(b"HTTP/1.1 202 Accepted\r\ncontent-length: 34\r\n\r\n" + accepted) as (client, asked):
        assert await client.execute("a/b", {"n": "ä"}, run_id="mine") == json.loads(accepted)
    head, _, body = asked[0].partition(b"\r\n\r\n")
    first, host, *headers = head.decode().split("\r\n")
    assert first == "POST /flows/api/v2/workflows/a%2Fb/execute HTTP/1.1"
    assert host.startswith("Host: 127.0.0.1:")
    assert {"Content-Type: application/json", "Connection: close"} <= set(headers)
    assert json.loads(body) == {"variables": {"n": "ä"}, "runId": "mine"}


async def test_a_query_leaves_out_what_is_none():
    async with answers(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull") as (client, asked):
        await client.get("/x", after=None, limit=1, types="a,b")
    assert asked[0].startswith(b"GET /flows/api/v2/x?limit=1&types=a%2Cb HTTP/1.1\r\n")
    assert b"Content-Type" not in asked[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{}\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 100_000,
    ],
    ids=[
        "nothing",
        "half a head",
        "half a body",
        "no length",
        "no last chunk",
        "half a chunk",
        "not HTTP",
        "endless",
    ],
)
async def test_half_an_answer_is_none(answer):
    async with answers(answer) as (client, _):
        with pytest.raises(Unreachable, match=r"^http://127.0.0.1:\d+/flows/ does not answer: .+"):
            await client.get("/x")


async def test_a_refusal_tells_each_fault():
    faults = [{"pointer": "/a", "message": "is wrong"}]
    body = json.dumps({"detail": "Not so.", "errors": faults}).encode()
    async with answers(b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)) as (
        client,
        _,
    ):
        with pytest.raises(Refused, match=r"^Not so\.$") as refused:
            await client.post("/x")
    assert (refused.value.status, refused.value.faults) == (400, [("/a", "is wrong")])


@pytest.mark.parametrize(("status", "kind"), [(404, Refused), (502, Unreachable)])
async def test_an_answer_of_somebody_else_is_named_by_its_status(status, kind):
    async with answers(b"HTTP/1.1 %d Oh No\r\n\r\n<html>" % status) as (client, _):
        with pytest.raises(kind, match=f"^{status} Oh No$"):
            await client.get("/x")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "its answer is another one"),
        (b"HTTP/1.1 200 OK\r\n\r\n[1]", "its answer is another one"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"status":"up"}', "its answer is another one"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000, "its answer is another one"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "its answer is another one"),
        (b"HTTP/1.1 301 Moved Permanently\r\nLocation: https://x/\r\n\r\n{}", "301 Moved Permanently"),
    ],
)
async def test_who_answers_in_another_way_is_not_the_service(answer, said):
    async with answers(answer) as (client, _):
        for ask in (client.execute("w"), client.cancel("r"), client.save({"workflowId": "w"})):
            with pytest.raises(
                Unreachable, match=r"^what answers at http:.*/flows/ is not Tailrace"
            ) as caught:
                await ask
            assert str(caught.value).endswith(f" ({said})")


async def test_nobody_has_an_empty_id():
    client = Client()
    for ask in (client.execute, client.cancel):
        with pytest.raises(ValueError, match="at least one character"):
            await ask("")
    with pytest.raises(ValueError, match="at least one character"):
        client.watch("")


async def test_what_json_cannot_say_is_not_sent():
    async with answers(b"") as (client, asked):
        with pytest.raises(ValueError, match="not JSON compliant"):
            await client.execute("x", {"n": float("nan")})
    assert asked == []


async def test_a_request_can_be_given_up():
    async with answers(b"", closes=False) as (client, asked):
        request = asyncio.create_task(client.get("/x"))
        async with asyncio.timeout(TIMEOUT_S):
            while not asked:
                await asyncio.sleep(0.01)
            request.cancel()
            await asyncio.wait([request])
    assert request.cancelled()


@pytest.mark.parametrize(
    ("url", "host", "stream"),
    [
        ("http://[::1]:8080", "[::1]:8080", "ws://[::1]:8080/api/v2/x?after=3"),
        ("https://example.org/flows/", "example.org", "wss://example.org/flows/api/v2/x?after=3"),
        ("http://example.org:80", "example.org", "ws://example.org/api/v2/x?after=3"),
        ("http://example.org:443", "example.org:443", "ws://example.org:443/api/v2/x?after=3"),
    ],
)
def test_an_address(url, host, stream):
    from service.client.http import Address

    address = Address(url)
    assert address.authority == host
    assert address.websocket("/x", {"after": 3, "types": None}) == stream


@pytest.mark.parametrize(
    ("said", "later_s"),
    [
        ("60", 60.0),
        ("0.5", 0.5),
        ("-1", None),
        ("inf", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        (None, None),
    ],
)
@pytest.mark.parametrize(("status", "kind"), [("429 Too Many Requests", Refused), ("503 Busy", Unreachable)])
async def test_when_to_ask_again_is_told(status, kind, said, later_s):
    header = "" if said is None else f"Retry-After: {said}\r\n"
    async with answers(f"HTTP/1.1 {status}\r\n{header}Content-Length: 0\r\n\r\n".encode()) as (client, _):
        with pytest.raises(kind) as caught:
            await client.execute("w")
        assert caught.value.retry_after_s == later_s
