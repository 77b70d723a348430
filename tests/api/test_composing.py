"""Answers that grow in memory: some of each user at once, the others after them, and nobody else notices."""

import asyncio
from types import SimpleNamespace

import pytest

from service.access import Grant
from service.api.composing import AT_ONCE_PER_USER_MAX, Composing
from service.api.filters import EventFilter
from service.api.history import _page_of_run
from service.api.stream_query import After, StreamQuery
from service.domain.events import RunStart, StepLog, encode_run_event
from service.log import NewEvent
from service.log.memory import MemoryLog

TIME = "2026-01-02T03:04:05.678Z"


class Gated(MemoryLog):
    """Counts who reads a long page, and lets none go on before ``go``."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = 0
        self.go = asyncio.Event()

    async def read(self, stream, *, after, limit):
        if limit > 1:
            self.reading += 1
            await self.go.wait()
        return await super().read(stream, after=after, limit=limit)


@pytest.fixture
async def log():
    log = Gated()
    payloads = [
        RunStart("w", 1, {}, {}, {"by": "x"}, "h"),
        *(StepLog("a", "info", str(n), TIME) for n in range(5)),
    ]
    events = [
        NewEvent(each.type, encode_run_event("r", each, seq=seq, timestamp=TIME))
        for seq, each in enumerate(payloads)
    ]
    await log.append("run/r", events, expected_seq=-1)
    return log


async def test_so_many_of_one_user_grow_at_once(log):
    async def may_see(*_) -> bool:
        return True

    context = SimpleNamespace(log=log, may_see=may_see, composing=Composing())
    asked = StreamQuery(After(), EventFilter(), 0.0)

    def page(name: str):
        grant = Grant(name, frozenset({"read"}))
        return asyncio.create_task(_page_of_run(context, "r", asked, grant, 100))

    of_ann = [page("ann") for _ in range(3 * AT_ONCE_PER_USER_MAX)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert log.reading == AT_ONCE_PER_USER_MAX
    of_bob = page("bob")
    for _ in range(20):
        await asyncio.sleep(0)
    assert log.reading == AT_ONCE_PER_USER_MAX + 1
    log.go.set()
    pages = await asyncio.gather(*of_ann, of_bob)
    assert {len(found.data) for found in pages} == {5}
    assert not context.composing._places, "nobody is remembered"
