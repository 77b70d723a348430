"""Our engine in this process: a log on disk, the repository, a supervisor; nothing of HTTP."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop

from service.domain.definition import parse_definition
from service.domain.events import RunComplete, RunStart, decode_event
from service.engine.supervisor import Supervisor
from service.log.follow import follow_all
from service.log.sqlite import SqliteLog
from service.repository import Repository
from service.steps import Step
from service.steps.wait import Wait
from tests.bench.running import NOTHING, chain

Ended = dict[str, asyncio.Future[None]]


class House:
    """``chain`` and ``runs`` return seconds, from the first header to the last seal."""

    def __init__(self, runner: asyncio.Runner, path: Path) -> None:
        self._runner = runner
        self._log = SqliteLog.open(path)
        self._ids = count()
        self._ended: Ended = {}
        steps: dict[str, Step] = {"wait": Wait()}
        parse = partial(parse_definition, kinds=steps)
        self._repository = Repository(self._log, parse, lambda: time.time_ns() // 1_000_000)
        self._supervisor = Supervisor(
            log=self._log, repository=self._repository, steps=steps, unfinished={}, position=0, anonymous="anonymous",
            runs_max=64, parallel_steps_max=64, parallel_steps_per_run_max=16, events_per_run_max=1_000_000,
            events_per_s_per_run_max=0,
            env={}, secrets={},
        )  # fmt: skip
        self._background: list[asyncio.Task[None]] = []

    def chain(self, steps: int) -> float:
        return self._runner.run(self._timed(chain(steps, NOTHING), 1, 1))

    def runs(self, number: int, *, at_once: int) -> float:
        return self._runner.run(self._timed(chain(1, NOTHING), number, at_once))

    async def open(self) -> None:
        self._background += [
            asyncio.create_task(self._supervisor.run()),
            asyncio.create_task(self._watch_seals()),
        ]

    async def close(self) -> None:
        for part in self._background:
            part.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._log.close()

    async def _timed(self, definition: dict[str, Any], runs: int, at_once: int) -> float:
        waiting = iter(range(runs))

        async def one_after_the_other() -> None:
            for _ in waiting:
                await self._carried(definition)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(one_after_the_other())
        return time.perf_counter() - began

    async def _carried(self, definition: dict[str, Any]) -> None:
        run_id = f"r{next(self._ids)}"
        ended = self._ended[run_id] = asyncio.get_running_loop().create_future()
        start = RunStart("w", 1, definition, {}, {"type": "bench"}, "hash")
        await self._repository.start_run(run_id, start)
        async with asyncio.timeout(60):
            await ended

    async def _watch_seals(self) -> None:
        async for page in follow_all(self._log, after=0, types=(RunComplete.type,)):
            for recorded in page:
                seal = decode_event(recorded.data).payload
                assert isinstance(seal, RunComplete)
                assert seal.status == "success", seal
                self._ended.pop(recorded.stream.partition("/")[2]).set_result(None)


@contextmanager
def house(directory: Path) -> Iterator[House]:
    """Run an engine on a log that is new."""
    with (
        TemporaryDirectory(dir=directory) as place,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        running = House(runner, Path(place) / "log.db")
        runner.run(running.open())
        try:
            yield running
        finally:
            runner.run(running.close())
