"""Several things that may end a connection: whichever comes first."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def first_of(*coroutines: Coroutine[Any, Any, T]) -> T:
    """Return what the first to end returns, the earlier listed if several have; the others are cancelled.

    Raises what the first to fail raises.
    """
    try:
        async with asyncio.TaskGroup() as group:
            racers = [group.create_task(coroutine) for coroutine in coroutines]
            await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
            ended = next(racer for racer in racers if racer.done())
            for racer in racers:
                racer.cancel()
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return ended.result()
