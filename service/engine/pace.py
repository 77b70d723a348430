"""How fast a run's events may come: over that its steps are heard later, and so have to wait."""


class Pace:
    """So many events a second, a second's worth of them at once (GCRA). ``per_s`` 0: any number."""

    __slots__ = ("_per_s", "_spent_until")

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._spent_until = 0.0

    def delay_s(self, events: int, now: float) -> float:
        """Return how long to wait after ``events``; ``now`` is a monotonic clock's."""
        if not self._per_s:
            return 0.0
        self._spent_until = max(now, self._spent_until) + events / self._per_s
        return max(0.0, self._spent_until - now - 1.0)
