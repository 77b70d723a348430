"""Answers are composed in memory: how many of one user at once."""

import asyncio
from weakref import WeakValueDictionary

AT_ONCE_PER_USER_MAX = 8  # of at most 4 MiB each (scan.py); further ones wait for their turn


class Composing:
    """Gives each user as many places as that."""

    def __init__(self) -> None:
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, user: str) -> asyncio.Semaphore:
        """Return the places of ``user``: hold one for as long as an answer grows."""
        places = self._places.get(user)
        if places is None:
            places = self._places[user] = asyncio.Semaphore(AT_ONCE_PER_USER_MAX)
        return places
