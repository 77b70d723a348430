"""How many appends are on their way at once: a bound whose free places cost nothing to take."""

import asyncio
from collections import deque


class Room:
    """A semaphore: ``free`` places, and who waits for one in turn.

    asyncio's looks at everyone who waits, and at the loop it belongs to, with each place that is taken.
    """

    def __init__(self, places: int) -> None:
        self.free = places
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_now(self) -> bool:
        """Take a place if one is free."""
        if not self.free:
            return False
        self.free -= 1
        return True

    async def take(self) -> None:
        """Take the first place that is free, once those who came before have theirs."""
        if self.take_now():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()  # it had come, unseen
            raise

    def give(self) -> None:
        """Give a place back: to who has waited longest, or to whoever comes."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)
