"""Many readers in one process that take so many bytes a second and no more, as over slow lines."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Timer

from msgspec import Struct, convert, json

from tests.bench.client import HERE, built

ANSWER_TIMEOUT_S = 120.0


class Slowly(Struct, frozen=True):
    """What they have come to: who is still there, and the events that were not the next one of their run."""

    readers: int
    bytes: int
    events: int
    gaps: int
    code: int  # of the last close frame that one of them got


class SlowReaders:
    """All of them begin with a run's first event and check that none is left out."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def look(self) -> Slowly:
        """Return how they are now."""
        self.say(b"")
        return self.answer()

    def say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Slowly:
        assert self._process.stdout is not None
        watchdog = Timer(ANSWER_TIMEOUT_S, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        assert line, "the slow readers ended"
        return convert(json.decode(line), Slowly)


@contextmanager
def slow_readers(address: str, paths: Sequence[str], *, each: int, bytes_per_s: int) -> Iterator[SlowReaders]:
    """Hold ``each`` slow readers on every path; they leave with this context, without a word."""
    command = [str(built(HERE)), "slow"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        readers = SlowReaders(process)
        spec = {"address": address, "paths": paths, "each": each, "bytesPerS": bytes_per_s}
        readers.say(json.encode(spec))
        readers.answer()
        yield readers
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()
