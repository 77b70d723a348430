"""How much is at work at once in the whole service: places that are taken, and queued for in turn."""

from collections import Counter
from collections.abc import Callable, Iterator

Wake = Callable[[], None]
User = str | None  # None: whoever uses a service that asks nobody who they are


def share_of(places_max: int) -> int:
    """Return how many places one user may have: nine tenths (of ten or more); others find one at once."""
    return places_max - places_max // 10


class Places:
    """A bounded number of places. Who found none is woken, in turn, when one is free.

    Users take turns: who has fewest is next. None has more than ``share_of(places_max)``.
    """

    def __init__(self, places_max: int) -> None:
        self.free = places_max
        self._share = share_of(places_max)
        self._held: Counter[User] = Counter()
        self._waiting: dict[User, dict[Wake, None]] = {}

    def take(self, user: User, wanted: int, wake: Wake) -> int:
        """Take up to ``wanted`` places and return how many; ``wake`` is called later if that was too few."""
        taken = min(wanted, self.free if user is None else min(self.free, self._share - self._held[user]))
        self._count(user, taken)
        if taken < wanted:
            self._waiting.setdefault(user, {})[wake] = None
        return taken

    def give_back(self, user: User, places: int) -> None:
        """Return places (0: only pass a wake-up on) and wake as many waiting runs as places are free.

        As many as are free, not as were returned: a run that was woken may have ended without taking its
        place, and the next one must not wait for that place for ever.
        """
        self._count(user, -places)
        for wake in list(self._next()):
            wake()

    def forget(self, user: User, wake: Wake) -> None:
        """Stop waiting."""
        waiting = self._waiting.get(user, {})
        waiting.pop(wake, None)
        if not waiting:
            self._waiting.pop(user, None)

    def _next(self) -> Iterator[Wake]:
        """Take who is to be woken out of the waiting: each may take one of the places that are free."""
        if not self._waiting:
            return
        would_hold = self._held.copy()
        for _ in range(self.free):
            users = [user for user in self._waiting if user is None or would_hold[user] < self._share]
            if not users:
                return
            user = min(users, key=would_hold.__getitem__)
            would_hold[user] += 1
            wake = next(iter(self._waiting[user]))
            self.forget(user, wake)
            yield wake

    def _count(self, user: User, taken: int) -> None:
        self.free -= taken
        self._held[user] += taken
        if not self._held[user]:
            del self._held[user]
