"""What a watcher costs while nothing happens: memory, by the process's own account."""

import json
import os
import re
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.server import Server

FIRST, MORE = 200, 600  # what is only needed once is there after the first
KIB_EACH_MAX = 10.0  # 7 of them in fact; 19 before what an idle one does not need was taken away

UPGRADE = (
    "GET /api/v2/workflows/runs/{run}/stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def watch(server: Server, run: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    client.sendall(UPGRADE.format(run=run, port=server.port).encode())
    assert client.recv(4096).startswith(b"HTTP/1.1 101 ")
    return client


def live(server: Server) -> int:
    found = re.search(
        r'^tailrace_streams\{form="websocket",phase="live"\} (\d+)',
        server.get("/metrics").body.decode(),
        re.M,
    )
    return int(found[1]) if found else 0


def resident_kib(server: Server, watchers: int) -> float:
    """Return the service's memory once all are live, at its lowest within two seconds."""
    deadline = time.monotonic() + 30
    while live(server) < watchers:
        assert time.monotonic() < deadline, f"{live(server)} of {watchers} are live"
        time.sleep(0.05)
    assert server.process is not None
    statm = Path(f"/proc/{server.process.pid}/statm")
    pages = []
    for _ in range(20):
        pages.append(int(statm.read_text().split()[1]))
        time.sleep(0.1)
    return min(pages) * os.sysconf("SC_PAGE_SIZE") / 1024


def test_an_idle_watcher_takes_little_memory(tmp_path):
    with Server(tmp_path, TAILRACE_DRAIN_TIMEOUT_S=1) as server, ExitStack() as clients:
        server.create("idle", {"steps": {"s": {"id": "s", "type": "wait", "config": {"duration": 600_000}}}})
        run = server.execute("idle")
        for _ in range(FIRST):
            clients.enter_context(watch(server, run))
        before = resident_kib(server, FIRST)
        for _ in range(MORE):
            clients.enter_context(watch(server, run))
        each = (resident_kib(server, FIRST + MORE) - before) / MORE
        assert each <= KIB_EACH_MAX, f"{each:.1f} KiB"


def test_its_request_is_told_when_it_is_over_as_if_all_of_it_had_been_kept(tmp_path):
    with Server(tmp_path, TAILRACE_DRAIN_TIMEOUT_S=1) as server:
        server.create("idle", {"steps": {"s": {"id": "s", "type": "wait", "config": {"duration": 600_000}}}})
        run = server.execute("idle")
        with watch(server, run):
            deadline = time.monotonic() + 20
            while not live(server):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        while not (told := [line for line in lines(server) if line.get("method") == "WS"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (line,) = told
        path = f"/api/v2/workflows/runs/{run}/stream"
        assert (line["path"], line["status"], line["by"]) == (path, 101, "anonymous")
        assert re.fullmatch("[0-9a-f]{16}", line["request_id"])
        counted = 'method="WS",route="/api/v2/workflows/runs/{run_id}/stream",status="101"} 1.0'
        assert counted in server.get("/metrics").body.decode()


def lines(server: Server) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in server.diagnostics.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]
