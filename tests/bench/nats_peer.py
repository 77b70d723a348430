"""NATS as a process of its own, in the version that PyPI has: core, JetStream, and its WebSocket."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct, convert

from tests.bench.client import Watched, ask

START_TIMEOUT_S = 20.0
CONFIG = """
listen: "127.0.0.1:{port}"
max_pending: 1GB
jetstream {{ store_dir: "{directory}", {jetstream} }}
websocket {{ listen: "127.0.0.1:{websocket_port}", no_tls: true }}
"""


class Load(Struct, frozen=True, rename="camel"):
    """What one run of appenders found."""

    per_s: float
    p50_ms: float
    p99_ms: float


class Nats(Struct, frozen=True):
    """Where a running server listens."""

    pid: int
    port: int
    websocket_port: int

    def store(self, streams: Sequence[str], *, events: int, event_bytes: int) -> None:
        """Put ``events`` into each of these new JetStream streams, which are files."""
        ask("store", address=f"127.0.0.1:{self.port}", streams=streams, events=events, bytes=event_bytes)

    def load(self, *, clients: int, appends: int, event_bytes: int) -> Load:
        """Publish single events from ``clients`` connections, each waiting for every acknowledgement."""
        spec = {"address": f"127.0.0.1:{self.port}", "clients": clients, "appends": appends}
        return convert(ask("append", **spec, bytes=event_bytes), Load)

    def watch(self, *streams: str, messages: int) -> list[Watched]:
        """Read a stream with each of as many WebSockets, all at once, as its own clients would."""
        address = f"127.0.0.1:{self.websocket_port}"
        spec = {"protocol": "jetstream", "address": address, "paths": streams, "messages": messages}
        return convert(ask("replay", **spec), list[Watched])


def installed() -> str | None:
    """Return the server's program, None if it is not here."""
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


@contextmanager
def nats(directory: Path, *, jetstream: str = "") -> Iterator[Nats | None]:
    """Run a server of our own on ``directory``; None if it is not installed."""
    program = installed()
    if program is None:
        yield None
        return
    port, websocket_port = _free_ports(2)
    place = directory / "nats"
    place.mkdir()
    config = place / "nats.conf"
    config.write_text(
        CONFIG.format(port=port, websocket_port=websocket_port, directory=place, jetstream=jetstream)
    )
    with (place / "diagnostics.txt").open("w") as diagnostics:
        process = subprocess.Popen([program, "-c", config], stdout=diagnostics, stderr=diagnostics)
    try:
        for each in (port, websocket_port):
            answers(each, "nats-server")
        yield Nats(process.pid, port, websocket_port)
    finally:
        process.terminate()
        process.wait(30)


def answers(port: int, name: str) -> None:
    """Return once somebody listens there."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, f"{name} does not answer"
            time.sleep(0.02)
        else:
            return


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
