"""Requests that are held until there is something to say: how long, how many, and what cuts them short."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from service.access import ANONYMOUS
from service.api.asgi import Receive
from service.api.problems import Problem, Refused
from service.api.race import first_of
from service.domain.durations import parse_duration
from service.errors import Throttled

WAIT_S_MAX = 300.0
HELD_REQUESTS_MAX = 1_000
HELD_REQUESTS_PER_USER_MAX = 250
SHUTTING_DOWN = Problem(503, "The service is shutting down.", headers={"retry-after": "1"}, close=1012)

T = TypeVar("T")


def as_wait(text: str) -> float:
    """Return seconds, from 0 to WAIT_S_MAX, of ms or a text such as 30s. Raises ValueError."""
    wait_s = parse_duration(text) / 1000
    if wait_s > WAIT_S_MAX:
        raise ValueError(f"must be at most {WAIT_S_MAX:g}s")
    return wait_s


async def held(work: Coroutine[Any, Any, T], receive: Receive, closing: asyncio.Event) -> T | None:
    """Return what ``work`` returns, None if the client of an HTTP request leaves first.

    Raises Refused (503) when the service shuts down meanwhile, and what ``work`` raises.
    """
    return await first_of(_left(receive), work, _stopped(closing))


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stopped(closing: asyncio.Event) -> None:
    await closing.wait()
    raise Refused(SHUTTING_DOWN)


class Held:
    """Counts the requests that are held; over a bound, of all or of one user's, another is refused."""

    def __init__(self) -> None:
        self.count = 0
        self._of_user: Counter[str] = Counter()

    @contextmanager
    def one(self, user: str) -> Iterator[None]:
        """Count one of ``user`` while the context lasts. Raises Refused (503), Throttled."""
        if user != ANONYMOUS and self._of_user[user] >= HELD_REQUESTS_PER_USER_MAX:
            said = f"{user!r} has {HELD_REQUESTS_PER_USER_MAX} requests that wait already; ask without wait."
            raise Throttled(said, retry_after_s=5)
        if self.count >= HELD_REQUESTS_MAX:
            said = f"{HELD_REQUESTS_MAX} requests wait already; ask without wait."
            raise Refused(Problem(503, said, headers={"retry-after": "5"}))
        self.count += 1
        self._of_user[user] += 1
        try:
            yield
        finally:
            self.count -= 1
            self._of_user[user] -= 1
            if not self._of_user[user]:
                del self._of_user[user]
