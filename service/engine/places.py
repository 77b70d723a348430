"""How many attempts run at once in the whole service: places that runs take, and queue for in turn."""

from collections.abc import Callable

Wake = Callable[[], None]


class Places:
    """A bounded number of places. Who found none is woken, in turn, when one is free."""

    def __init__(self, places_max: int) -> None:
        self.free = places_max
        self._waiting: dict[Wake, None] = {}

    def take(self, wanted: int, wake: Wake) -> int:
        """Take up to ``wanted`` places and return how many; ``wake`` is called later if that was too few."""
        taken = min(wanted, self.free)
        self.free -= taken
        if taken < wanted:
            self._waiting[wake] = None
        return taken

    def give_back(self, places: int) -> None:
        """Return places (0: only pass a wake-up on) and wake as many waiting runs as places are free.

        As many as are free, not as were returned: a run that was woken may have ended without taking its
        place, and the next one must not wait for that place for ever.
        """
        self.free += places
        for wake in list(self._waiting)[: self.free]:
            del self._waiting[wake]
            wake()

    def forget(self, wake: Wake) -> None:
        """Stop waiting."""
        self._waiting.pop(wake, None)
