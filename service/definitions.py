"""Definitions, parsed: large ones beside the loop, one at a time, and kept while there is room.

To parse one of the largest takes a fifth of a second, in which nobody else would have a turn.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from service.domain.definition import Definition

LARGE_BYTES = 8 * 1024  # of JSON; what is smaller takes less than 10 ms
KEPT_BYTES_MAX = 2 * 1024 * 1024  # of JSON; parsed it may be a hundred times as large


class Parse(Protocol):
    """Turns a definition as it was sent into a Definition. Raises InvalidInput."""

    def __call__(self, raw: dict[str, Any], /, *, steps_max: int | None = None) -> Definition:
        """``steps_max``: None for any number of steps."""
        ...


class Definitions:
    """Parses what is recorded and what is sent; the limit of ``steps_max`` is for the latter alone."""

    def __init__(self, parse: Parse, *, steps_max: int | None) -> None:
        self._parse = parse
        self._steps_max = steps_max
        self._kept: OrderedDict[bytes, Definition] = OrderedDict()
        self._kept_bytes = 0
        self._under_way: dict[bytes, asyncio.Future[Definition]] = {}
        # Apart: runs that are taken up do not wait for what users send.
        self._of_recorded = ThreadPoolExecutor(1, thread_name_prefix="definitions")
        self._of_sent = ThreadPoolExecutor(1, thread_name_prefix="definitions-sent")

    async def check(
        self,
        definition: dict[str, Any],
        *,
        size: int,
        allow: Callable[[], None],
        charge: Callable[[float], None],
    ) -> None:
        """Raise InvalidInput unless ``definition``, of ``size`` bytes of JSON, may be recorded.

        ``allow`` is called when its turn comes, in another thread, and may refuse; ``charge`` is told the
        seconds that it has taken, also when nobody waits for the answer any more.
        """

        def checked() -> tuple[float, Exception | None]:
            allow()
            began = time.thread_time()
            try:
                self._parse(definition, steps_max=self._steps_max)
            except Exception as error:  # noqa: BLE001  whatever it is: it has taken its time, too
                return time.thread_time() - began, error
            return time.thread_time() - began, None

        if size <= LARGE_BYTES:
            seconds, error = checked()
            charge(seconds)
        else:
            checking = asyncio.wrap_future(self._of_sent.submit(checked))

            def ended(done: "asyncio.Future[tuple[float, Exception | None]]") -> None:
                if _has_result(done):
                    charge(done.result()[0])

            checking.add_done_callback(ended)
            _, error = await asyncio.shield(checking)
        if error is not None:
            raise error

    async def recorded(self, data: bytes) -> Definition:
        """Return the definition that ``data`` is, as JSON; equal ones are shared. Raises InvalidInput."""
        found = self._kept.get(data)
        if found is not None:
            self._kept.move_to_end(data)
            return found
        if len(data) <= LARGE_BYTES:
            return self._keep(data, self._decoded(data))
        parsing = self._under_way.get(data)
        if parsing is None:
            parsing = asyncio.wrap_future(self._of_recorded.submit(self._decoded, data))
            self._under_way[data] = parsing
            parsing.add_done_callback(lambda done: self._take(data, done))
        return await asyncio.shield(parsing)  # others wait for the same

    def _decoded(self, data: bytes) -> Definition:
        return self._parse(msgspec.json.decode(data))

    def _take(self, data: bytes, done: "asyncio.Future[Definition]") -> None:
        del self._under_way[data]
        if _has_result(done):
            self._keep(data, done.result())

    def _keep(self, data: bytes, definition: Definition) -> Definition:
        self._kept[data] = definition
        self._kept_bytes += len(data)
        while self._kept_bytes > KEPT_BYTES_MAX:
            gone, _ = self._kept.popitem(last=False)
            self._kept_bytes -= len(gone)
        return definition


def _has_result(done: "asyncio.Future[Any]") -> bool:
    """Say whether there is a result, and count an error as seen: whoever asked may be gone."""
    return not done.cancelled() and done.exception() is None
