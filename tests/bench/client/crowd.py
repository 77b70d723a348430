"""Many watchers in one process, and the producers whose events they wait for."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import Any

from msgspec import Struct, convert, json

from tests.bench.client import HERE, built

ORDER_TIMEOUT_S = 120.0


class Heard(Struct, frozen=True, rename="camel"):
    """What an order came to. Times are from when an event was due until a watcher had read it."""

    watchers: int
    delivered: int
    missing: int  # to those who are still there
    seconds: float  # from when the first was due until the last had been read
    p50_ms: float
    p99_ms: float
    max_ms: float
    connected_s: float

    @property
    def per_s(self) -> float:
        return self.delivered / self.seconds


class Place(Struct, frozen=True):
    """Where there is something to watch."""

    address: str
    paths: Sequence[str]
    protocol: str = "websocket"


class Crowd:
    """``control`` is where producers ask for orders; they end when the crowd does."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.control = str(self._answer())

    def connect(self, place: Place, *, each: int) -> Heard:
        """Open ``each`` connections on every path, and return once they are quiet."""
        return self._order(
            do="connect", protocol=place.protocol, address=place.address, paths=place.paths, each=each
        )

    def produce(self, events: int, *, per_s: int = 0, outputs: int = 1, grace_s: float = 10.0) -> Heard:
        """Have the producer emit ``events``, all at once or paced, and return once all have arrived.

        One with several ``outputs`` does so to each, in turn. ``grace_s`` after the last was due it is given
        up, and what is missing counts as arriving then.
        """
        return self._order(
            do="produce", events=events, perS=per_s, outputs=outputs, producers=1, graceS=grace_s
        )

    @contextmanager
    def stuck(self, place: Place) -> Iterator[None]:
        """Hold one more connection, which is never read from."""
        self._order(do="stick", address=place.address, paths=place.paths)
        try:
            yield
        finally:
            self._order(do="unstick")

    def _order(self, **order: object) -> Heard:
        assert self._process.stdin is not None
        self._process.stdin.write(json.encode(order) + b"\n")
        self._process.stdin.flush()
        return convert(self._answer(), Heard)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        watchdog = Timer(ORDER_TIMEOUT_S, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        assert line, "the watchers ended"
        return json.decode(line)


@contextmanager
def crowd() -> Iterator[Crowd]:
    """Run a client that takes orders; whoever watches or produces for it ends with it."""
    command = [str(built(HERE)), "watch"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Crowd(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(30)
        process.stdout.close()
