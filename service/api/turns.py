"""Who reads history goes by turns: however many do at once, the loop comes back to everybody else."""

import asyncio
from collections import deque

READERS_PER_TURN = 4  # of the loop: one alone costs it up to a millisecond


class Turns:
    """Lets a few through in each turn of the loop, in the order in which they came.

    All who become able to read at once would do so in one and the same turn: a thousand slow clients, whose
    buffers empty together, would keep the live ones and those who append waiting for a second.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._left = READERS_PER_TURN
        self._counting = False

    async def next(self) -> None:
        """Return in a turn of the loop that is not this one; the next, if not too many wish for it."""
        loop = asyncio.get_running_loop()
        if not self._counting:
            self._counting = True
            loop.call_soon(self._turn)
        if self._left and not self._waiting:
            self._left -= 1
            await asyncio.sleep(0)
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _turn(self) -> None:
        self._left = READERS_PER_TURN
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():  # not of one that has been cancelled
                turn.set_result(None)
                self._left -= 1
        self._counting = self._left < READERS_PER_TURN
        if self._counting:
            asyncio.get_running_loop().call_soon(self._turn)
