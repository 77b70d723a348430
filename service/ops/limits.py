"""How often something may be done: rates, counted in memory, by the monotonic clock.

The library ``limits`` counts by the wall clock: a clock that is set back would refuse everybody for as long.
"""

import time
from collections.abc import Callable

KEYS_MAX = 20_000  # that are remembered at once; more are only those of addresses nobody can tell apart


class Rate:
    """So many a minute for each key, all of them at once if need be: GCRA (ITU-T I.371), a leaky bucket.

    Who has not been there for a minute is forgotten. ``per_minute`` 0 allows everything.
    """

    def __init__(self, per_minute: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._now = now
        self._full_at: dict[str, float] = {}  # when the key will have its whole allowance again

    def take(self, key: str) -> float:
        """Count one for ``key`` and return 0; if it is too early, the seconds until it would be counted."""
        wait_s = self.wait_s(key, 1)
        if not wait_s:
            self.charge(key, 1)
        return wait_s

    def wait_s(self, key: str, count: float = 0) -> float:
        """Return the seconds until ``count`` would be within what is allowed, 0 if it is."""
        if not self.per_minute:
            return 0.0
        now = self._now()
        full_at = max(now, self._full_at.get(key, now)) + count * 60.0 / self.per_minute
        over_s = full_at - now - 60.0
        return over_s if over_s > 1e-9 else 0.0

    def charge(self, key: str, count: float) -> None:
        """Count ``count`` for ``key``, be it allowed or not: what it was is known afterwards only."""
        if not self.per_minute:
            return
        now = self._now()
        if key not in self._full_at and len(self._full_at) >= KEYS_MAX:
            self._forget(now)
        self._full_at[key] = max(now, self._full_at.get(key, now)) + count * 60.0 / self.per_minute

    def _forget(self, now: float) -> None:
        """Forget who has everything; if that is nobody, the tenth that has been there longest."""
        left = {key: at for key, at in self._full_at.items() if at > now}
        if len(left) >= KEYS_MAX:
            left = dict(sorted(left.items(), key=lambda each: each[1])[KEYS_MAX // 10 :])
        self._full_at = left
