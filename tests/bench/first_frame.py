"""From sending an execute to the first frame at a client that watches the run."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Row, Target
from tests.bench.rounds import Scale, middle, percentile
from tests.bench.running import NOTHING, RUNS, chain, server
from tests.server import Server

PAUSE_S = 0.01


def rows(scale: Scale, directory: Path) -> Iterator[Row]:
    """Yield the median time to the first frame."""
    runs = scale.of(200, 5)
    accepted, first = [], []
    with server(directory) as running:
        running.create("w", chain(1, NOTHING))
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        for number in range(runs + 3):
            found = _measure(running, connection, f"r{number}")
            if number >= 3:  # the first ones import and connect
                accepted.append(found[0])
                first.append(found[1])
            time.sleep(PAUSE_S)
        connection.close()
    yield Row(
        "execute to first frame, p50", "ms", middle(first), target=Target("figure", "most", 15),
        notes=(
            f"{runs} runs one after the other; p99 {percentile(first, 0.99):.1f} ms",
            f"the 202 alone after {middle(accepted):.1f} ms",
        ),
    )  # fmt: skip


def _measure(running: Server, connection: http.client.HTTPConnection, run_id: str) -> tuple[float, float]:
    """Execute under an id of our own, watch at once; return ms to the 202 and to the first frame."""
    body = json.dumps({"runId": run_id})
    began = time.perf_counter()
    connection.request("POST", "/api/v2/workflows/w/execute", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    accepted = time.perf_counter()
    assert answer.status == 202, answer.status
    with socket.create_connection(("127.0.0.1", running.port)) as watcher:
        watcher.settimeout(10)
        watcher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        watcher.sendall(
            f"GET {RUNS}/{run_id}/stream HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        data = b""
        while not data.partition(b"\r\n\r\n")[2]:
            chunk = watcher.recv(65536)
            assert chunk, data
            data += chunk
        first = time.perf_counter()
        head, _, frames = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        assert frames[:1] == b"\x81", frames
        while b"run success" not in data:
            chunk = watcher.recv(65536)
            assert chunk, data
            data += chunk
    return (accepted - began) * 1000, (first - began) * 1000
