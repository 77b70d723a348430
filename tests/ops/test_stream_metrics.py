"""What a scrape says of the streams: each figure moves with the real thing, and by as much."""

import json
import socket
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from tests.ops.scraped import scrape, until
from tests.server import Server

W = "/api/v2/workflows"
TALKS = {"steps": {"a": {"type": "command", "config": {"command": "seq", "args": ["3000"]}}}}
FLOODS = {"steps": {"a": {"type": "command", "config": {"command": "seq", "args": ["300000"]}}}}
UPGRADE = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip
WAITS = {"steps": {"a": {"type": "wait", "config": {"duration": "10m"}}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("metrics"), TAILRACE_DRAIN_TIMEOUT_S=0) as server:
        for name, definition in (("talks", TALKS), ("floods", FLOODS), ("waits", WAITS)):
            server.create(name, definition)
        yield server


def url(server: Server, run_id: str) -> str:
    return f"{server.ws_url}{W}/runs/{run_id}/stream"


def test_every_event_and_byte_that_is_delivered(server):
    run_id = server.execute("talks")
    last_seq = server.finished(run_id)["lastSeq"]
    before = scrape(server)
    sizes = [len(server.get(f"{W}/runs/{run_id}/stream", Accept=accept).body)
             for accept in ("application/x-ndjson", "text/event-stream")]  # fmt: skip
    with connect(url(server, run_id)) as client:
        messages = list(client)
    after = scrape(server)
    assert len(messages) == last_seq

    def grown(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert grown("tailrace_events_delivered_total") == 3 * last_seq
    framed = sum(len(message.encode()) + (2 if len(message.encode()) < 126 else 4) for message in messages)
    end = sizes[1] - (
        sizes[0] + last_seq * len(b"id: \ndata: \n") + sum(len(str(n + 1)) for n in range(last_seq))
    )
    assert grown("tailrace_bytes_delivered_total") == sizes[0] + (sizes[1] - end) + framed
    for form, how in (("websocket", "1000"), ("ndjson", "end"), ("sse", "end")):
        assert grown("tailrace_streams_ended_total", form=form, how=how) == 1
        assert grown("tailrace_stream_seconds_count", form=form) == 1


def test_who_is_live_and_how_they_end(server):
    run_id = server.execute("waits")
    before = until(server, lambda now: now("tailrace_attempts_running", type="wait") > 0)
    with connect(url(server, run_id)), connect(url(server, run_id)) as client:
        until(server, lambda now: now("tailrace_streams", form="websocket", phase="live") == 2)
        with connect(url(server, "not-there-yet") + "?wait=60s"):
            until(server, lambda now: now("tailrace_streams", form="websocket", phase="opening") == 1)
        client.send("x" * 5_000)
        with suppress(ConnectionClosedError):
            while True:
                client.recv()
    after = until(server, lambda now: now("tailrace_streams") == 0)
    ended = "tailrace_streams_ended_total"
    assert after(ended, form="websocket", how="left") - before(ended, form="websocket", how="left") == 2
    assert after(ended, form="websocket", how="1009") - before(ended, form="websocket", how="1009") == 1
    assert after(ended) - before(ended) == 3
    assert server.post(f"{W}/runs/{run_id}/cancel").status == 202
    server.finished(run_id)


def stuck(server: Server, run_id: str, *headers: str) -> socket.socket:
    """Open a stream at the live edge of a run, and read nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.connect(("127.0.0.1", server.port))
    request = f"GET {W}/runs/{run_id}/stream?after=tail HTTP/1.1", f"Host: 127.0.0.1:{server.port}", *headers
    client.sendall("\r\n".join([*request, "", ""]).encode())
    return client


def test_who_falls_behind_and_on_whom_we_give_up(tmp_path):
    bounds = {"TAILRACE_STALL_TIMEOUT_S": 3, "TAILRACE_PING_INTERVAL_S": 1, "TAILRACE_PONG_TIMEOUT_S": 2}
    with Server(tmp_path, TAILRACE_DRAIN_TIMEOUT_S=0, **bounds) as server:
        server.create("floods", FLOODS)
        server.create("waits", WAITS)
        flooding, waiting = server.execute("floods"), server.execute("waits")
        clients = [
            stuck(server, flooding, *UPGRADE),
            stuck(server, flooding, "Accept: text/event-stream"),
            stuck(server, flooding, "Accept: application/x-ndjson"),
            stuck(server, waiting, *UPGRADE),  # takes what there is, and answers no PING
        ]
        found = until(
            server,
            lambda now: all(
                now("tailrace_streams_slow", form=form) == 1 for form in ("websocket", "sse", "ndjson")
            ),
        )
        assert found("tailrace_stream_tail_lag_events") > 1_000
        assert found("tailrace_stream_replay_lag_events") == 0, "they were at the edge when they began"
        after = until(server, lambda now: now("tailrace_streams") == 0, 60)
        for form, how in (("websocket", "4408"), ("sse", "4408"), ("ndjson", "4408"), ("websocket", "1011")):
            assert after("tailrace_streams_ended_total", form=form, how=how) == 1
        assert after("tailrace_streams_ended_total") == 4
        assert after("tailrace_stream_tail_lag_events") == 0
        for client in clients:
            client.close()
        lines = map(json.loads, server.diagnostics.read_text().splitlines())
        told = [(line["ended"], line["client"]) for line in lines if "ended" in line]
        assert sorted(told) == [("1011", "127.0.0.1"), *[("4408", "127.0.0.1")] * 3]


def test_pushes_and_who_cannot_take_them(server):
    before = scrape(server)
    run_id = server.execute("floods")
    client = stuck(server, run_id, *UPGRADE)
    until(
        server,
        lambda now: now("tailrace_streams_fell_behind_total") > before("tailrace_streams_fell_behind_total"),
        60,
    )
    server.finished(run_id, 120)
    after = scrape(server)
    assert after("tailrace_stream_push_seconds_count") > before("tailrace_stream_push_seconds_count")
    client.close()
    until(server, lambda now: now("tailrace_streams") == 0)


def test_how_far_a_replay_has_still_to_go(server):
    run_id = server.execute("floods")
    last_seq = server.finished(run_id, 120)["lastSeq"]
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    slow.connect(("127.0.0.1", server.port))
    request = f"GET {W}/runs/{run_id}/stream HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
    slow.sendall(request.encode())
    found = until(server, lambda now: now("tailrace_streams", form="ndjson", phase="replaying") == 1)
    assert 0 < found("tailrace_stream_replay_lag_events") <= last_seq + 1
    slow.close()
    until(server, lambda now: now("tailrace_streams") == now("tailrace_stream_replay_lag_events") == 0)
