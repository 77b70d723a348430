"""An asyncio loop without a clock, sockets or threads; a seed decides who goes first."""

import asyncio
import random
from typing import Any

TURNS_MAX = 20_000  # a history takes about a thousand


class Stuck(Exception):
    """Everyone sleeps and nothing will ever wake them, or they run in circles."""


class SeededLoop(asyncio.BaseEventLoop):
    """Runs what is ready in a seeded order; when nothing is, time jumps to the next timer."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._now = 0.0
        self._turns = 0
        self._selector = self

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None and not self._stopping:
            raise Stuck
        # A slow processor: timers become due although there is something to run.
        self._now += timeout or self._chance.choice((0.0, 0.0, self._chance.random() / 2))
        return []

    def _run_once(self) -> None:
        self._turns += 1
        if self._turns > TURNS_MAX:
            raise Stuck
        held: list[asyncio.Handle] = []
        if len(self._ready) > 1:
            self._chance.shuffle(self._ready)
            held = [self._ready.pop() for _ in range(self._chance.randrange(len(self._ready)))]
        super()._run_once()
        self._ready.extend(held)

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def run(chance: random.Random, main: Any) -> None:
    """Run a coroutine to its end. Raises Stuck when it never comes."""
    loop = SeededLoop(chance)
    broken: list[BaseException] = []  # what a callback raised, which no one awaits
    loop.set_exception_handler(lambda _, context: broken.append(context.get("exception", Stuck())))
    try:
        loop.run_until_complete(main)
    finally:
        loop._turns = 0
        for left in asyncio.all_tasks(loop):
            left.cancel()
        loop.call_later(0, lambda: None)
        loop.run_until_complete(asyncio.sleep(1))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    if broken:
        raise broken[0]
