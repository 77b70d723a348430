"""Bits flip and files are cut, in the log's file and in those beside it, at rest and under the running service.

Whatever a reader is given is what was once written, in its place; where that ends too early, he is told.
``python -m tests.faults.damage --cases 1000``.
"""

import asyncio
import random
import sys
import tempfile
from argparse import ArgumentParser
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from service.app import Service, build
from service.errors import LogUnavailable
from service.log.sqlite import SqliteLog
from service.ops.settings import Settings
from service.segments.file import frames_path
from service.server import listening, server_of
from tests.faults.program import program
from tests.faults.readings import DEADLINE_S, Reader
from tests.log.contract import read_stream
from tests.server import Server

DB = "tailrace.db"
FILES = (DB, DB, DB, f"{DB}.segments.frames", f"{DB}.segments", f"{DB}.views")  # by how often
LINES = 1_300
SHORT_RUNS = 3
SEALED_TIMEOUT_S = 60

Kept = tuple[dict[str, bytes], dict[str, list[bytes]]]  # files; runs


def say(count: int) -> dict:
    step = {"type": "command", "config": {"command": "seq", "args": [str(count)]}}
    return {"steps": {"a": step, "b": {"type": "wait", "config": {"duration": 1}, "dependsOn": ["a"]}}}


def written(directory: Path) -> Kept:
    """Let the real service write some runs and seal the long one; return its files and what its runs hold."""
    with Server(directory, TAILRACE_MIN_FREE_BYTES=0) as server:
        server.create("long", say(LINES))
        server.create("short", say(12))
        ids = [server.execute("long"), *(server.execute("short") for _ in range(SHORT_RUNS))]
        for run_id in ids:
            server.finished(run_id)
        frames = frames_path(server.db.with_name(f"{DB}.segments"))
        asyncio.run(until(lambda: frames.exists() and frames.stat().st_size > LINES * 150, SEALED_TIMEOUT_S))
    files = {name: (directory / name).read_bytes() for name in FILES}
    return files, asyncio.run(_runs(directory / DB, ids))


async def _runs(path: Path, ids: list[str]) -> dict[str, list[bytes]]:
    log = SqliteLog.open(path)
    try:
        return {run_id: [event.data for event in await read_stream(log, f"run/{run_id}")] for run_id in ids}
    finally:
        await log.close()


async def until(condition, timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return ``content`` with something wrong with it."""
    found = bytearray(content)
    at = chance.randrange(len(found))
    match chance.choice(("flip", "flip", "flip", "flips", "garbage", "zeros", "cut", "swapped")):
        case "flip":
            found[at] ^= 1 << chance.randrange(8)
        case "flips":
            for _ in range(chance.randint(2, 300)):
                found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
        case "garbage":
            found[at : at + 100] = chance.randbytes(len(found[at : at + 100]))
        case "zeros":
            found[at : at + 512] = bytes(len(found[at : at + 512]))
        case "cut":
            del found[at:]
        case "swapped":
            one, other = (chance.randrange(max(len(found) // 4096, 1)) * 4096 for _ in range(2))
            kept = found[one : one + 4096]
            found[one : one + 4096] = found[other : other + 4096]
            found[other : other + 4096] = kept
    return bytes(found)


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[Service, int]]:
    """Run the service in this process. Raises LogUnavailable when it does not open."""
    settings = Settings(db=directory / DB, min_free_bytes=0)
    log = SqliteLog.open(settings.db)
    try:
        with listening("", 0) as sockets:
            port = sockets[0].getsockname()[1]
            async with build(settings, log, port=port) as service:
                server = server_of(service.app, settings)
                running = asyncio.create_task(server.serve(sockets))
                try:
                    await until(lambda: server.started, DEADLINE_S)
                    yield service, port
                finally:
                    service.closing.set()
                    server.should_exit = True
                    await running
    finally:
        await log.close()


async def look_at(service: Service, faults: list[str]) -> None:
    """Add what is wrong with the service itself: it has ended, or takes up no run."""
    try:
        await until(lambda: service.failure is not None or service.engine() is not None, DEADLINE_S)
    except TimeoutError:
        faults.append("the engine never begins")
    if service.failure is not None:
        faults.append(f"the service ends: {service.failure}")


async def run_case(directory: Path, kept: Kept, seed: int) -> tuple[list[str], Counter[str]]:
    """Damage one file, before the service opens it or after, and read all."""
    chance = random.Random(seed)
    files, runs = kept
    name = chance.choice(FILES)
    at_rest = chance.random() < 0.6
    broken = damaged(files[name], chance)
    for each, content in files.items():
        (directory / each).write_bytes(broken if at_rest and each == name else content)
    try:
        async with serving(directory) as (service, port):
            reader = Reader(port, runs)
            if not at_rest:
                await reader.read(chance)
                with (directory / name).open("r+b") as file:
                    file.truncate(len(broken))
                    file.write(broken)
            await reader.read(chance)
            await look_at(service, reader.faults)
    except LogUnavailable:
        return [], Counter({"does not open": 1})
    where = f"seed {seed}, {name}, {'at rest' if at_rest else 'open'}"
    return [f"{where}: {fault}" for fault in reader.faults], reader.told


def damages(scratch: Path, *, seed: int, count: int) -> tuple[list[str], dict[str, int]]:
    """Run ``count`` cases; return the faults found, and figures."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    (origin := scratch / "origin").mkdir()
    kept = written(origin)
    faults: list[str] = []
    told: Counter[str] = Counter()
    with asyncio.Runner() as runner:
        for number in range(seed, seed + count):
            with tempfile.TemporaryDirectory(dir=scratch) as directory:
                try:
                    found, ended = runner.run(run_case(Path(directory), kept, number))
                except Exception as error:  # whatever comes out of the service, nothing should
                    found, ended = [f"seed {number}: {error!r}"], Counter()
            faults += found
            told += ended
    structlog.reset_defaults()
    return faults, {"cases": count, "faults": len(faults), **told}


def main() -> int:
    return program(
        ArgumentParser(description=__doc__), "cases", 1_000,
        lambda scratch, given: damages(scratch, seed=given.seed, count=given.cases),
        in_memory=True,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
