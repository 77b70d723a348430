"""A program that appends to the real log and says in a file what it was told; its faults are others' doing.

What an event holds follows from its stream and its seq, so whoever finds one knows what it must be.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
from hashlib import sha256
from pathlib import Path

from service.errors import LogUnavailable, WrongExpectedSeq
from service.log import NewEvent, commit, store, writer
from service.log.sqlite import SqliteLog

STREAMS = 4
TYPES = ("start", "log", "end")
SIZES = (5, 40, 300, 300, 2_000, 9_000)
WAL_BYTES_MAX = 300_000  # so that a short life has checkpoints
WAL_BYTES = 150_000  # it has from the start, so that it is both written over and made longer
UNPLACED_MAX = 50


def event_of(stream: str, seq: int) -> NewEvent:
    """Return the event that belongs at this place."""
    digest = sha256(f"{stream} {seq}".encode()).digest()
    size = SIZES[digest[0] % len(SIZES)] + digest[1]
    filler = digest.hex() * (size // 64 + 1)
    return NewEvent(TYPES[digest[2] % len(TYPES)], f"{stream} {seq} {filler[:size]}".encode())


class Life:
    """One process: appends to all streams at once, what it does and is told written to ``acks`` at once."""

    def __init__(self, log: SqliteLog, acks: int, seed: int, appends: int) -> None:
        self.log = log
        self.acks = acks
        self.chance = random.Random(seed)
        self.left = appends

    async def run(self) -> None:
        await asyncio.gather(*(self.append_to(f"run/{number}") for number in range(STREAMS)))

    async def append_to(self, stream: str) -> None:
        seq = await self.log.wait(stream, after=-2)
        self.tell(stream, "stored", seq)
        while self.left > 0:
            self.left -= 1
            count = self.chance.choice((1, 1, 1, 2, 3, 8, 30))
            batch = [event_of(stream, seq + n) for n in range(1, count + 1)]
            self.tell(stream, "appends", seq + count)
            try:
                seq = (await self.log.append(stream, batch, expected_seq=seq)).seq
            except WrongExpectedSeq as wrong:  # an append whose answer was "unknown" is there
                seq = wrong.actual
            except LogUnavailable as error:
                self.tell(stream, "not stored" if error.stored is False else "unknown", seq)
                continue
            self.tell(stream, "stored", seq)

    def tell(self, stream: str, said: str, seq: int) -> None:
        os.write(self.acks, json.dumps([stream, said, seq]).encode() + b"\n")


async def live(path: Path, acks: Path, *, seed: int, appends: int, synchronous: str, end: str) -> None:
    opened = store.opened(path)
    opened._db.execute(f"PRAGMA synchronous = {synchronous}")
    log = SqliteLog(path, opened)
    await Life(log, os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND), seed, appends).run()
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    await log.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("acks", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--appends", type=int, default=60)
    parser.add_argument("--synchronous", default="FULL", choices=("FULL", "NORMAL"))
    parser.add_argument("--end", default="close", choices=("close", "kill"))
    given = parser.parse_args()
    writer.WAL_BYTES_MAX = WAL_BYTES_MAX
    store.WAL_BYTES = WAL_BYTES
    store.UNPLACED_MAX = UNPLACED_MAX
    commit.RETRY_INTERVAL_S = 0.0
    try:
        asyncio.run(
            live(
                given.path, given.acks, seed=given.seed, appends=given.appends,
                synchronous=given.synchronous, end=given.end,
            )
        )  # fmt: skip
    except LogUnavailable as error:
        print(error, file=sys.stderr)  # a fault while it opened
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
