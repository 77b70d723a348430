"""A client that takes nothing, behind a proxy: nobody keeps for it what it has not taken, and it can go on."""

import time
from contextlib import ExitStack
from hashlib import sha256

from tests.proxies.documented import NAME
from tests.proxies.proxy import KINDS, Proxy
from tests.proxies.ways import WAYS, Cut
from tests.server import Server

SAY = "head -c 24000000 /dev/zero | tr '\\0' x | fold -w 16000"  # more than the kernels on the way can hold
MUCH = {"steps": {"say": {"type": "command", "config": {"command": "sh", "args": ["-c", SAY]}}}}


class Client:
    """Connects, and takes nothing until ``take``; counts what it has, over all its connections."""

    def __init__(self, way, proxy: Proxy, run_id: str) -> None:
        self.count = 0
        self.digest = sha256()
        self.cuts = 0
        self._open = lambda: way(proxy, run_id, after=self.count)
        self._stream = self._open()

    def take(self) -> None:
        """Take everything, and come back where the connection ended before."""
        while not self._took_all():
            self.cuts += 1
            self._stream = self._open()

    def _took_all(self) -> bool:
        with self._stream as stream:
            try:
                while (event := stream.next()) is not None:
                    self.digest.update(event)
                    self.count += 1
            except Cut:
                return False
            return True


def test_a_stuck_client_is_noticed_by_the_service_and_can_go_on(tmp_path):
    with Server(tmp_path, TAILRACE_HOSTS=NAME, TAILRACE_STALL_TIMEOUT_S=3) as server, ExitStack() as stack:
        server.create("much", MUCH)
        run_id = server.execute("much")
        last = server.finished(run_id, 60)["lastSeq"]
        proxies = [stack.enter_context(Proxy(kind, tmp_path, server.port)) for kind in KINDS]
        clients = [Client(way, proxy, run_id) for proxy in proxies for way in WAYS]
        wait_until_ended(server, f"{run_id}/stream", len(clients))
        for client in clients:
            client.take()
        assert all(client.cuts for client in clients), "somebody has kept it all"
        assert {client.count for client in clients} == {last}
        assert len({client.digest.digest() for client in clients}) == 1


def wait_until_ended(server: Server, path: str, count: int) -> None:
    """Return when the service has done with ``count`` requests for ``path``."""
    deadline = time.monotonic() + 120
    while server.diagnostics.read_text().count(f'{path}"') < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)
