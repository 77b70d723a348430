"""A thread for what would hold up the loop: reads that wait for the disk, transactions.

Both give up the GIL while they last.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """Makes calls one after the other, in their order."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Call ``function`` in the thread."""
        return asyncio.wrap_future(self._thread.submit(function, *args, **kwargs))

    def close(self) -> None:
        """End the thread once it has done what it was told."""
        self._thread.shutdown(wait=False)
