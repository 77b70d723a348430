"""What is looked at every few seconds: the process, the machine, the log, and what the watchers heard."""

import os
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from msgspec import Struct

from tests.bench.client.crowd import Heard
from tests.bench.running import cpu_s, rss_bytes
from tests.server import Server

KIB, MIB = 1024, 1024 * 1024
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Sample(Struct, frozen=True):
    """One window of time; what is not a rate is as of its end."""

    phase: str
    at_s: float
    rss_bytes: int
    tcp_bytes: int  # that the kernel holds for all TCP connections of the machine, both ends
    files: int
    threads: int
    streams: int  # that are open, by the service's own word
    log_bytes: int
    cores: float  # of the service
    load_cores: float  # of its watchers and of what feeds its runs
    other_cores: float  # of everybody else on the machine
    events_per_s: float  # that healthy watchers were sent, counted once for each
    p50_ms: float
    p99_ms: float
    missing: int


class Gauge:
    """Samples one service. Its load are this process and the children that it has besides the service.

    They come and go: ``restart`` once they have.
    """

    def __init__(self, running: Server) -> None:
        assert running.process is not None
        self._running = running
        self._pid = running.process.pid
        self._began_at = monotonic()
        self.restart()

    def restart(self) -> None:
        """Let the next window begin here."""
        self._at, self._used = monotonic(), self._cpu()

    def sample(self, phase: str, heard: Heard | None = None) -> Sample:
        """End the window and return what it was like; the next one begins."""
        took_s = monotonic() - self._at
        service, load, everybody = (
            (now - before) / took_s for now, before in zip(self._cpu(), self._used, strict=True)
        )
        self.restart()
        return Sample(
            phase,
            round(self._at - self._began_at, 1),
            rss_bytes(self._pid),
            tcp_bytes(),
            _count(f"/proc/{self._pid}/fd"),
            _count(f"/proc/{self._pid}/task"),
            self.streams(),
            sum(file.stat().st_size for file in self._running.db.parent.glob(f"{self._running.db.name}*")),
            service,
            load,
            max(everybody - service - load, 0.0),
            0.0 if heard is None else heard.delivered / took_s,
            0.0 if heard is None else heard.p50_ms,
            0.0 if heard is None else heard.p99_ms,
            0 if heard is None else heard.missing,
        )

    def streams(self) -> int:
        """Return how many streams the service says are open."""
        answer = self._running.get("/api/v2/streams?limit=1")
        assert answer.status == 200, answer
        return int(answer.json["total"])

    def rss_bytes(self) -> int:
        """Return the memory of the service."""
        return rss_bytes(self._pid)

    def _load(self) -> list[int]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return [os.getpid(), *(int(pid) for pid in children if int(pid) != self._pid)]

    def _cpu(self) -> Sequence[float]:
        return cpu_s(self._pid), sum(map(cpu_s, self._load())), _busy_s()


def tcp_bytes() -> int:
    """Return what the kernel holds for TCP, which no process's memory shows."""
    (line,) = (
        line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:")
    )
    return int(line.split()[-1]) * _PAGE_BYTES


def _busy_s() -> float:
    """Return the seconds that all cores together have not been idle, since boot."""
    user, nice, system, _idle, _iowait, *interrupts = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + sum(interrupts[:2])) / _TICKS_PER_S


def _count(directory: str) -> int:
    return sum(1 for _ in Path(directory).iterdir())
