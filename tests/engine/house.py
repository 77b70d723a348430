"""A real engine over a real log, with step types that do what a test tells them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from service.domain.definition import parse_definition
from service.domain.events import Error, RunStart, decode_event
from service.engine.supervisor import Supervisor
from service.log import Log
from service.log.memory import MemoryLog
from service.repository import Repository
from service.steps import Attempt, Outcome

Script = Callable[[Attempt], Awaitable[Outcome]]
ENDS = ("success", "failed", "skipped", "cancelled")


class Scripted:
    """A step type whose attempts run the script named in its config: ``{"do": name, ...}``."""

    type = "scripted"

    def __init__(self, *, holds_slot: bool = True, **scripts: Script) -> None:
        self.holds_slot = holds_slot
        self.scripts = {"succeed": succeed, "fail": fail, "hang": hang} | scripts
        self.attempts: list[Attempt] = []

    def check(self, config: Mapping[str, Any], pointer: str) -> list:
        return []

    def repeatable(self, config: Mapping[str, Any]) -> bool:
        return bool(config.get("repeatable"))

    async def run(self, attempt: Attempt) -> Outcome:
        self.attempts.append(attempt)
        return await self.scripts[attempt.config.get("do", "succeed")](attempt)


async def succeed(attempt: Attempt) -> Outcome:
    return Outcome("success", dict(attempt.config.get("gives", {})))


async def fail(attempt: Attempt) -> Outcome:
    return Outcome("failed", {}, error=Error("broken", "It broke."))


async def hang(attempt: Attempt) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


def step(id_: str, *, after: list[str] | None = None, do: str = "succeed", gives: dict | None = None, **more):
    config = {"do": do, "gives": gives or {}} | more.pop("config", {})
    return {"id": id_, "type": "scripted", "config": config, "dependsOn": after or [], **more}


class House:
    """The engine's surroundings: ``start`` a run, ``ended`` waits for its seal and returns its events."""

    def __init__(self, log: Log, kind: Scripted, **bounds: Any) -> None:
        self.log = log
        self.kind = kind
        self.steps = {"scripted": kind}
        parse = partial(parse_definition, kinds=self.steps)
        self.repository = Repository(log, parse, now_ms=lambda: int(time.time() * 1000))
        self.bounds = {
            "runs_max": 100, "parallel_steps_max": 100, "parallel_steps_per_run_max": 100,
            "events_per_run_max": 1_000_000, "events_per_s_per_run_max": 0, "env": {}, "secrets": {},
        } | bounds  # fmt: skip

    def supervisor(self, unfinished: list[str] | None = None, position: int = 0) -> Supervisor:
        return Supervisor(
            log=self.log, repository=self.repository, steps=self.steps,
            unfinished=dict.fromkeys(unfinished or []), position=position, anonymous="anonymous", **self.bounds,
        )  # fmt: skip

    @asynccontextmanager
    async def engine(self, unfinished: list[str] | None = None, position: int = 0):
        supervisor = self.supervisor(unfinished, position)
        running = asyncio.create_task(supervisor.run())
        try:
            yield supervisor
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def start(
        self, steps: list[dict], run_id: str = "r1", variables: dict | None = None, **more
    ) -> str:
        definition = {"steps": steps, "variables": variables or {}, **more}
        parse_definition(definition, kinds=self.steps)
        await self.repository.start_run(
            run_id, RunStart("w", 1, definition, variables or {}, {"by": "test"}, "hash")
        )
        return run_id

    async def until(self, run_id: str, holds: Callable[[list], bool]) -> list:
        events: list = []
        async with asyncio.timeout(20):
            while not holds(events):
                await self.log.wait(f"run/{run_id}", after=len(events) - 1)
                events += await self.events(run_id, after=len(events) - 1)
        return events

    async def ended(self, run_id: str = "r1") -> list:
        return await self.until(
            run_id, lambda events: bool(events) and events[-1].payload.type == "run_complete"
        )

    async def events(self, run_id: str = "r1", *, after: int = -1) -> list:
        events: list = []
        while page := await self.log.read(f"run/{run_id}", after=after + len(events), limit=500):
            events += [decode_event(recorded.data) for recorded in page]
        return events


def house(log: Log | None = None, *, scripts: dict[str, Script] | None = None, **bounds) -> House:
    return House(log or MemoryLog(), Scripted(**(scripts or {})), **bounds)


def ends(events: list) -> dict[str, str]:
    """The status each step ended with; a step that ended twice is a failed test."""
    found: dict[str, str] = {}
    for event in events:
        if event.payload.type == "step_complete":
            assert event.payload.step_id not in found, "one step_complete per step"
            found[event.payload.step_id] = event.payload.status
    return found


def shape(events: list) -> list[str]:
    """The events as short words: ``type step`` in their order."""
    return [f"{e.payload.type} {getattr(e.payload, 'step_id', '')}".strip() for e in events]
