"""How a watch behaves when the other side does not: every way to lose a connection, from a scripted server."""

import json
import threading
from collections.abc import Callable
from contextlib import contextmanager

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Response
from websockets.sync.server import ServerConnection, serve

from service import client
from service.client import Client, Refused, Unreachable

Turn = Callable[[ServerConnection], None] | Response


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Record the pauses instead of sleeping through them."""
    slept: list[float] = []
    monkeypatch.setattr(client, "sleep", slept.append)  # not of the module: other threads sleep, too
    return slept


@contextmanager
def scripted(*turns: Turn):
    """Run a server that treats each connection as its turn says, the last turn for ever; give client and paths."""
    paths: list[str] = []

    def turn() -> Turn:
        return turns[min(len(paths), len(turns)) - 1]

    def answer(_: ServerConnection, request) -> Response | None:
        paths.append(request.path)
        now = turn()
        return now if isinstance(now, Response) else None

    def converse(connection: ServerConnection) -> None:
        now = turn()
        assert not isinstance(now, Response)
        now(connection)

    with serve(converse, "127.0.0.1", 0, process_request=answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Client(f"http://127.0.0.1:{server.socket.getsockname()[1]}"), paths
        server.shutdown()
        thread.join()


def sends(*seqs: int, code: int = 1000, reason: str = "run success lastSeq=9") -> Turn:
    def converse(connection: ServerConnection) -> None:
        for seq in seqs:
            connection.send(json.dumps({"seq": seq}))
        connection.close(code, reason)

    return converse


def cut(*seqs: int) -> Turn:
    def converse(connection: ServerConnection) -> None:
        for seq in seqs:
            connection.send(json.dumps({"seq": seq}))
        connection.socket.shutdown(2)

    return converse


def denies(status: int, detail: str, **headers: str) -> Response:
    body = json.dumps({"detail": detail}).encode()
    return Response(status, "No", Headers({"content-length": str(len(body)), **headers}), body)


def seqs(watch: client.Watch) -> list[int]:
    return [event["seq"] for _, event in watch]


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4408])
def test_a_close_that_says_come_back_is_followed(code):
    with scripted(sends(1, 2, code=code, reason="later"), sends(3)) as (service, paths):
        told: list[str] = []
        watch = service.watch("r", notice=told.append)
        assert seqs(watch) == [1, 2, 3]
        assert watch.status == "success"
        assert paths == ["/api/v2/workflows/runs/r/stream", "/api/v2/workflows/runs/r/stream?after=2"]
        assert told[0].startswith(f"closed {code} later; again in ")
        assert told[0].endswith("after seq 2")


def test_a_cut_connection_is_taken_up():
    with scripted(cut(1), cut(), sends(2)) as (service, paths):
        assert seqs(service.watch("r")) == [1, 2]
        assert [path.partition("?")[2] for path in paths] == ["", "after=1", "after=1"]


@pytest.mark.parametrize("code", [1008, 1009, 4401, 4500])
def test_a_close_that_says_stop_is_an_error(code, pauses):
    with scripted(sends(1, code=code, reason="event 7 is damaged")) as (service, _):
        watch = service.watch("r")
        with pytest.raises(Refused, match=f"{code} event 7 is damaged"):
            seqs(watch)
        assert watch.after == 1
        assert pauses == []


@pytest.mark.parametrize("status", [400, 404, 409])
def test_a_denial_says_what_the_service_said(status):
    with scripted(denies(status, "No such thing.")) as (service, _):
        with pytest.raises(Refused, match=r"^No such thing\.$") as refused:
            seqs(service.watch("r"))
        assert refused.value.status == status


def test_a_busy_service_is_given_the_time_it_asks_for(pauses):
    busy = denies(503, "Too many streams.", **{"Retry-After": "7"})
    with scripted(cut(1), busy, sends(2)) as (service, _):
        assert seqs(service.watch("r")) == [1, 2]
        assert len(pauses) == 2
        assert pauses[1] == 7


def test_pauses_grow_and_end(pauses):
    with scripted(cut(1), cut()) as (service, paths):
        with pytest.raises(Unreachable, match="given up after 10 attempts"):
            seqs(service.watch("r"))
        assert len(paths) == client.LOST_IN_A_ROW_MAX + 1
        assert len(pauses) == client.LOST_IN_A_ROW_MAX
        for number, pause_s in enumerate(pauses):
            longest_s = min(client.PAUSE_MAX_S, client.PAUSE_FIRST_S * 2**number)
            assert longest_s / 2 <= pause_s <= longest_s
        assert len(set(pauses)) == len(pauses)


def test_progress_forgives_earlier_losses(pauses):
    turns = [cut(seq) for seq in range(1, 16)]
    with scripted(*turns, sends(16)) as (service, _):
        assert seqs(service.watch("r")) == list(range(1, 17))
        assert max(pauses) <= client.PAUSE_FIRST_S


def test_the_first_connection_is_not_waited_for(pauses):
    with (
        scripted(denies(503, "Shutting down.")) as (service, _),
        pytest.raises(Unreachable, match="Shutting down"),
    ):
        seqs(service.watch("r"))
    assert pauses == []


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", "http://x?y", ""])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match="is not an address such as"):
        Client(url)


@pytest.mark.parametrize(
    ("url", "stream"),
    [
        ("http://[::1]:8080", "ws://[::1]:8080/api/v2/workflows/runs/r/stream?after=3"),
        ("https://example.org/flows/", "wss://example.org:443/flows/api/v2/workflows/runs/r/stream?after=3"),
    ],
)
def test_the_address_of_a_stream(url, stream):
    assert Client(url).stream_url("r", 3) == stream
