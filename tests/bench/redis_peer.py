"""Redis Streams that flush before they answer (``appendfsync always``), under Redis' own load generator."""

import csv
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

STREAMS = 100
START_TIMEOUT_S = 10.0
LOAD_TIMEOUT_S = 60.0


class Load(Struct, frozen=True):
    """What one run of the load generator found."""

    per_s: float
    p50_ms: float
    p99_ms: float


def installed() -> bool:
    """Say whether the server and its load generator are here."""
    return bool(shutil.which("redis-server") and shutil.which("redis-benchmark"))


@contextmanager
def redis(directory: Path) -> Iterator[int]:
    """Run a server of our own on ``directory`` and give its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0",
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def load(port: int, *, clients: int, appends: int, event_bytes: int) -> Load:
    """Append single entries of ``event_bytes`` to 100 streams from ``clients`` connections."""
    command = [
        "redis-benchmark", "-p", str(port), "-c", str(clients), "-n", str(appends), "-r", str(STREAMS), "--csv",
        "XADD", "key:__rand_int__", "*", "d", "x" * event_bytes,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_TIMEOUT_S, check=True)
    (found,) = csv.DictReader(done.stdout.splitlines())
    return Load(float(found["rps"]), float(found["p50_latency_ms"]), float(found["p99_latency_ms"]))


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.02)
        else:
            return
