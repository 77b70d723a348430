"""Bits flip and files are cut, in the log's file and in those beside it, at rest and under the running service.

Whatever a reader is given is what was once written, in its place; where that ends too early, he is told.
``python -m tests.faults.damage --cases 1000``.
"""

import asyncio
import json
import random
import re
import sys
import tempfile
from argparse import ArgumentParser
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from service.app import Service, build
from service.errors import LogUnavailable
from service.log.sqlite import SqliteLog
from service.ops.settings import Settings
from service.segments.file import frames_path
from service.server import listening, server_of
from tests.faults.kill import stored_bytes
from tests.faults.program import program
from tests.log.contract import read_stream
from tests.server import Answer, Server

DB = "tailrace.db"
FILES = (DB, DB, DB, f"{DB}.segments.frames", f"{DB}.segments", f"{DB}.views")  # by how often
LINES = 1_300
SHORT_RUNS = 3
RUNS = "/api/v2/workflows/runs"
SEALED_TIMEOUT_S = 60
DEADLINE_S = 15
UNDER_WAY = {404, 503}  # it may not be known any more, or the store as a whole may not be readable

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
        asyncio.run(_until(lambda: frames.exists() and frames.stat().st_size > LINES * 150, SEALED_TIMEOUT_S))
    files = {name: (directory / name).read_bytes() for name in FILES}
    return files, asyncio.run(_runs(directory / DB, ids))


async def _runs(path: Path, ids: list[str]) -> dict[str, list[bytes]]:
    log = SqliteLog.open(path)
    try:
        return {run_id: [event.data for event in await read_stream(log, f"run/{run_id}")] for run_id in ids}
    finally:
        await log.close()


async def _until(condition, timeout_s: float) -> None:
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
                    await _until(lambda: server.started, DEADLINE_S)
                    yield service, port
                finally:
                    service.closing.set()
                    server.should_exit = True
                    await running
    finally:
        await log.close()


class Reader:
    """Reads all runs, each in two ways; ``faults`` is what was wrong, ``told`` counts how readings ended."""

    def __init__(self, port: int, runs: dict[str, list[bytes]]) -> None:
        self.client = Server(Path())
        self.client.port = port
        self.runs = runs
        self.faults: list[str] = []
        self.told: Counter[str] = Counter()

    async def read(self, chance: random.Random) -> None:
        for run_id, events in self.runs.items():
            after = chance.choice((-1, -1, chance.randrange(len(events))))
            ways = (self.over_websocket, self.over_lines, self.over_sse, self.over_pages)
            for way in chance.sample(ways, 2):
                try:
                    got, reported = await way(run_id, after)
                except TimeoutError:
                    self.faults.append(f"{way.__name__} of {run_id} after {after}: it never ends")
                    continue
                self.check(
                    f"{way.__name__} of {run_id} after {after}", got, events[after + 1 :], after, reported
                )

    def check(
        self, what: str, got: list[bytes], expected: list[bytes], after: int, reported: str | int | None
    ) -> None:
        """``reported``: the damaged seq, another reason to end, or None for a proper end."""
        first = next((n for n, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), None)
        if first is not None or len(got) > len(expected):
            self.faults.append(f"{what}: {after + 1 + (first or 0)} is not what was written")
        elif reported is None and len(got) < len(expected):
            self.faults.append(f"{what}: ends in order before {after + 1 + len(got)}")
        elif isinstance(reported, int) and reported not in {after + 1 + len(got), after + len(expected)}:
            # A reading needs its run's last event to begin with: it may be that one which is reported.
            self.faults.append(f"{what}: {reported} is reported, {after + 1 + len(got)} comes next")
        self.told["whole" if reported is None else "damaged" if isinstance(reported, int) else reported] += 1

    async def over_websocket(self, run_id: str, after: int) -> tuple[list[bytes], str | int | None]:
        got: list[bytes] = []
        url = f"{self.client.ws_url}{RUNS}/{run_id}/stream?types=all{behind(after)}"
        try:
            async with (
                asyncio.timeout(DEADLINE_S),
                connect(url, compression=None, ping_interval=None) as socket,
            ):
                while True:
                    got.append(await socket.recv(decode=False))
        except InvalidStatus as refused:
            return got, self.refusal(refused.response.status_code, json.loads(refused.response.body))
        except ConnectionClosed as closed:
            end = closed.rcvd
        if end is not None and end.code == 1000:
            return got, None
        if (
            end is not None
            and end.code == 4500
            and (match := re.fullmatch(r"event (\d+) is damaged", end.reason))
        ):
            return got, int(match[1])
        if end is None or end.code not in {4404, 1013}:
            self.faults.append(f"the WebSocket of {run_id} after {after} closed {end}")
        return got, f"closed {end.code if end else None}"

    async def ask(self, path: str, accept: str = "*/*") -> Answer:
        return await asyncio.wait_for(asyncio.to_thread(self.client.get, path, accept=accept), DEADLINE_S)

    async def over_lines(self, run_id: str, after: int) -> tuple[list[bytes], str | int | None]:
        answer = await self.ask(f"{RUNS}/{run_id}/stream?types=all{behind(after)}", "application/x-ndjson")
        if answer.status != 200:
            return [], self.refusal(answer.status, answer.json)
        lines = answer.body.splitlines()
        if lines and lines[-1].startswith(b'{"problem":'):
            return lines[:-1], self.problem(json.loads(lines[-1])["problem"])
        return lines, None

    async def over_sse(self, run_id: str, after: int) -> tuple[list[bytes], str | int | None]:
        answer = await self.ask(f"{RUNS}/{run_id}/stream?types=all{behind(after)}", "text/event-stream")
        if answer.status == 204:
            return [], None
        if answer.status != 200:
            return [], self.refusal(answer.status, answer.json)
        got: list[bytes] = []
        end: str | int | None = "cut off"
        for block in answer.body.split(b"\n\n"):
            data = block.partition(b"data: ")[2]
            if block.startswith(b"id: "):
                got.append(data)
            elif block.startswith(b"event: end\n"):
                end = None
            elif block.startswith(b"event: fault\n"):
                end = self.problem(json.loads(data))
        return got, end

    async def over_pages(self, run_id: str, after: int) -> tuple[list[bytes], str | int | None]:
        got: list[bytes] = []
        while True:
            answer = await self.ask(f"{RUNS}/{run_id}/events?types=all&limit=1000{behind(after)}")
            if answer.status != 200:
                return got, self.refusal(answer.status, answer.json)
            got += stored_bytes(answer.body)
            cursor = answer.json["nextCursor"]
            if cursor is None:
                return got, None
            after = cursor

    def refusal(self, status: int, problem: dict) -> str | int:
        if status not in UNDER_WAY and (status != 500 or "seq" not in problem):
            self.faults.append(f"answered {status} {problem}")
        return self.problem(problem)

    def problem(self, problem: dict) -> str | int:
        return problem["seq"] if "seq" in problem else str(problem["status"])


def behind(after: int) -> str:
    return f"&after={after}" if after >= 0 else ""


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
            if service.failure is not None:
                reader.faults.append(f"the service ends: {service.failure}")
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
