"""When connections are looked at again: those that are due together by one timer, instead of one for each."""

import asyncio
from math import ceil
from typing import Protocol
from weakref import WeakKeyDictionary

TURN_S = 0.02  # who is due within it is looked at together


class Checked(Protocol):
    """Something that is looked at now and then."""

    def check(self) -> None:
        """Look at it; it says itself when that is to be done again."""
        ...


class Rounds:
    """Who is due when, in one event loop: turn n begins TURN_S * n seconds into the loop's time."""

    def __init__(self) -> None:
        self._turns: dict[int, dict[Checked, None]] = {}
        self._due: dict[Checked, None] = {}  # in the turn that is under way

    def later(self, one: Checked, delay_s: float, turn: int | None = None) -> int:
        """Have ``one`` looked at once, ``delay_s`` after its last ``turn`` or from now, and return when."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if turn is not None:
            self.leave(one, turn)
        at = now + delay_s if turn is None else next_due(turn * TURN_S, delay_s, now)
        turn = ceil(at / TURN_S)
        due = self._turns.get(turn)
        if due is None:
            due = self._turns[turn] = {}
            loop.call_at(turn * TURN_S, self._look, turn)
        due[one] = None
        return turn

    def leave(self, one: Checked, turn: int) -> None:
        """Do not look at ``one`` in ``turn``, unless that is over."""
        self._turns.get(turn, self._due).pop(one, None)

    def _look(self, turn: int) -> None:
        self._due = self._turns.pop(turn)
        while self._due:
            one, _ = self._due.popitem()
            try:
                one.check()
            except Exception as error:  # noqa: BLE001  the fault of one is the loop's to tell, as of any timer
                said = {"message": "a connection could not be looked at", "exception": error}
                asyncio.get_running_loop().call_exception_handler(said)


def next_due(due: float, delay: float, now: float) -> float:
    """Return when something is due again that was ``due`` before ``now``, every ``delay``.

    Counted from when it was due, not from when it came: else those that were late together stay together, and
    ten thousand connections are looked at in ever longer turns.
    """
    return min(max(due + delay, now), now + delay)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Rounds] = WeakKeyDictionary()


def rounds() -> Rounds:
    """Return the rounds of the loop that is running."""
    loop = asyncio.get_running_loop()
    found = _of_loops.get(loop)
    if found is None:
        found = _of_loops[loop] = Rounds()
    return found
