"""No file descriptor is left: the service lives, says so, keeps what it has, and goes on by itself afterwards."""

import random
import resource
import socket
import threading
import time

from websockets.sync.client import connect

from tests.attacks.watched import Size, attacked, faults_after, stored, until
from tests.server import Server

W = "/api/v2/workflows"
SPARE = 25  # descriptors that are left when the attack begins, or more: the limit is one on their numbers
CONNECTIONS = 200
TICK = "i=0; while [ ! -e %s ]; do i=$((i+1)); echo tick $i; sleep 0.01; done"
SAY = {"steps": {"say": {"type": "command", "config": {"command": "echo", "args": ["hello"]}}}}


def run(count: int, seed: int) -> list[str]:
    """Use up all descriptors ``count`` times; return what went wrong then or afterwards."""
    chance = random.Random(seed)
    with attacked() as server:
        stop = server.db.with_name("stop")
        config = {"command": "sh", "args": ["-c", TICK % stop]}
        server.create("tick", {"steps": {"tick": {"type": "command", "config": config}}})
        server.create("say", SAY)
        ticking = server.execute("tick")
        assert until(lambda: server.run(ticking)["status"] == "running")
        seen: list[bytes] = []
        url = f"{server.ws_url}{W}/runs/{ticking}/stream"
        with connect(url, compression=None, max_size=None, ping_interval=None) as healthy:
            reader = threading.Thread(
                target=lambda: seen.extend(event.encode() for event in healthy), daemon=True
            )
            reader.start()
            before = Size.of(server)
            run_ids: list[str] = []
            faults = [fault for _ in range(count) for fault in _exhaust(server, run_ids, chance)]
            stop.touch()
            server.finished(ticking)
            reader.join(30)
        if seen != stored(server, ticking):
            faults.append(f"the healthy reader has {len(seen)} events of {len(stored(server, ticking))}")
        for run_id in run_ids:
            run = server.finished(run_id)
            if run["status"] != "success" and (run["error"] or {}).get("code") != "command_not_started":
                faults.append(f"a run of that time is {run['status']}: {run['error']}")
        faults += faults_after(server, before, grown_bytes_max=32 * 1024 * 1024)
    return faults


def _exhaust(server: Server, run_ids: list[str], chance: random.Random) -> list[str]:
    assert server.process is not None
    faults = []
    pid = server.process.pid
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    said = _said(server)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (Size.of(server).files + SPARE, hard))
    held = []
    for _ in range(CONNECTIONS):
        one = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        one.sendall(b"GET /health HTTP/1.1\r\n")
        held.append(one)
        if len(held) == SPARE - 12:  # not all are gone: a run begins, and has to end somehow
            run_ids.append(server.execute("say"))
    if len(run_ids) % 2:  # the numbers that are still free are of no use either: uvloop stops to listen
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        held.append(socket.create_connection(("127.0.0.1", server.port), timeout=10))
    if not until(lambda: _said(server) > said, 10):
        faults.append("it does not say that it has no descriptors")
    time.sleep(chance.random())
    if server.process.poll() is not None:
        return [*faults, "the service has ended"]
    for one in held:
        one.close()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (Size.of(server).files + SPARE, hard))
    if not until(lambda: _serves(server), 30):
        return [*faults, "it does not serve again"]
    if not until(
        lambda: (
            server.diagnostics.read_text().count("there are enough file descriptors again") == _said(server)
        )
    ):
        faults.append("it does not say that all is well again")
    run_ids += [server.execute("say") for _ in range(chance.randint(1, 2))]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
    return faults


def _said(server: Server) -> int:
    return server.diagnostics.read_text().count("new connections may be dropped")


def _serves(server: Server) -> bool:
    try:
        return server.get("/ready").status == 200
    except OSError:
        return False
