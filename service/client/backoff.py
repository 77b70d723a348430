"""How long a client waits before it tries again, and how often it tries."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple


class Backoff(NamedTuple):
    """Pauses at random between nothing and a bound that doubles from ``first_s`` to ``longest_s``.

    At random, so that a thousand clients that lost the same service do not come back at the same moment.
    After ``attempts`` attempts in a row that brought nothing new it is given up: as it stands after about a
    minute and a half of pauses. ``sleep`` waits for some seconds; tests and simulations bring their own.
    """

    first_s: float = 0.5
    longest_s: float = 20.0
    attempts: int = 12
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    def pause_s(self, attempt: int) -> float:
        """Return seconds to wait before the ``attempt``-th attempt in a row, counted from 1."""
        longest_s = min(self.longest_s, self.first_s * 2 ** min(attempt - 1, 30))
        return random.uniform(0, longest_s)  # noqa: S311  it spreads clients, it hides nothing
