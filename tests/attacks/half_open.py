"""Clients whose network is gone: nothing comes of them any more, not even an end, and the service notices.

In a network namespace of its own, where the packets of some clients can be dropped.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import which

from websockets.sync.client import ClientConnection, connect

from tests.attacks.watched import Size, attacked, ended_requests, faults_after, until
from tests.server import ROOT, Server

W = "/api/v2/workflows"
QUIET = {"steps": {"nap": {"type": "wait", "config": {"duration": "1h"}}}}
TICK = "while :; do echo tick; sleep 0.05; done"
TICKING = {"steps": {"tick": {"type": "command", "config": {"command": "sh", "args": ["-c", TICK]}}}}
NOTICED_S = 60.0  # the timeouts that are to notice them are 2 to 5 s here
PINGS = {"TAILRACE_PING_INTERVAL_S": 0.5, "TAILRACE_PONG_TIMEOUT_S": 2}
BY_PONG = PINGS | {"TAILRACE_STALL_TIMEOUT_S": 600}  # of WebSockets: nothing else notices them in time
BY_STALL = PINGS | {"TAILRACE_STALL_TIMEOUT_S": 3}  # of the others, which have no PONG


def why_not() -> str | None:
    """Return why this cannot be tried here, None if it can."""
    if os.geteuid() != 0:
        return "only root may make a network namespace"
    if which("iptables") is None:
        return "iptables is missing: scripts/install-debian iptables"
    tried = subprocess.run(["unshare", "--net", "iptables", "-L", "-n"], capture_output=True, text=True)
    return tried.stderr.strip() or "no network namespace" if tried.returncode else None


def run(count: int, seed: int) -> list[str]:
    """Cut ``count`` clients of each kind off; return what the service did not notice."""
    assert why_not() is None, why_not()
    inside = subprocess.run(
        ["unshare", "--net", sys.executable, "-W", "error", "-m", "tests.attacks.half_open", str(count)],
        cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=600,
    )  # fmt: skip
    return json.loads(inside.stdout.splitlines()[-1])


def _inside(count: int) -> Iterator[str]:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    yield from _cut_off(count, BY_PONG, websockets=True)
    yield from _cut_off(count, BY_STALL, websockets=False)


def _cut_off(count: int, settings: dict[str, float], *, websockets: bool) -> Iterator[str]:
    with attacked(**settings) as server, ExitStack() as stack:
        server.create("quiet", QUIET)
        server.create("ticking", TICKING)
        quiet, ticking = server.execute("quiet"), server.execute("ticking")
        assert until(lambda: server.run(ticking)["status"] == "running")
        healthy = _watch(stack, server, ticking)
        healthy_idle = _watch(stack, server, quiet)
        before = Size.of(server)
        if websockets:
            lost = [_watch(stack, server, run_id).socket for run_id in (quiet, ticking) for _ in range(count)]
        else:
            kinds = ("text/event-stream", "application/x-ndjson")
            path = f"{W}/runs/{ticking}/stream"
            lost = [stack.enter_context(_request(server, path, kind)) for kind in kinds for _ in range(count)]
        time.sleep(3)  # longer than a missing PONG is waited for: these clients answer
        if ended_requests(server, "/stream"):
            yield "clients were closed while their network was there"
        streams = len(lost)
        if not websockets:
            path = f"{W}/runs/{quiet}"
            lost += [stack.enter_context(_request(server, path, half=True)) for _ in range(count)]
        for client in lost:
            _drop(client.getsockname()[1])
        if not until(lambda: ended_requests(server, "/stream") >= streams, NOTICED_S):
            yield f"{streams - ended_requests(server, '/stream')} of {streams} lost clients were not noticed"
        if ended_requests(server, "/stream") > streams:
            yield "a healthy client was closed as well"
        head = _last_seq(server, ticking)
        while json.loads(healthy.recv(timeout=20))["seq"] < head:
            pass
        healthy_idle.ping().wait(timeout=20)
        yield from faults_after(server, before, grown_bytes_max=32 * 1024 * 1024)
        if said := [line for line in server.diagnostics.read_text().splitlines() if '"warning"' in line]:
            yield f"warnings: {said[:3]}"


def _watch(stack: ExitStack, server: Server, run_id: str) -> ClientConnection:
    """Follow a run with a client that answers PINGs."""
    url = f"{server.ws_url}{W}/runs/{run_id}/stream"
    watching = stack.enter_context(connect(url, compression=None, ping_interval=None, close_timeout=0.1))
    json.loads(watching.recv())
    return watching


def _request(server: Server, path: str, accept: str = "*/*", *, half: bool = False) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAccept: {accept}\r\n"
    client.sendall(head.encode() if half else f"{head}\r\n".encode())
    if not half:
        assert client.recv(12) == b"HTTP/1.1 200"
    return client


def _drop(port: int) -> None:
    for side in ("--sport", "--dport"):
        subprocess.run(["iptables", "-A", "INPUT", "-p", "tcp", side, str(port), "-j", "DROP"], check=True)


def _last_seq(server: Server, run_id: str) -> int:
    answer = server.get(f"{W}/runs/{run_id}/events?after=-1&limit=1")
    assert answer.status == 200, answer
    return answer.json["lastSeq"]


if __name__ == "__main__":
    assert Path.cwd() == ROOT
    print(json.dumps(list(_inside(int(sys.argv[1])))), flush=True)
    # Their closing handshakes would wait for packets that cannot come.
    os._exit(0)
