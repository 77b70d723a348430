"""Definitions are checked and parsed so that others have their turns, and kept while there is room."""

import asyncio
import json
import threading
from functools import partial

import pytest

from service import definitions
from service.definitions import LARGE_BYTES, Definitions
from service.domain.definition import parse_definition
from service.errors import InvalidInput, Throttled
from tests.engine.house import Scripted, step

KINDS = {"scripted": Scripted()}
LARGE = {"steps": [step("a")], "description": "x" * LARGE_BYTES}
SMALL = {"steps": [step("a")]}


class Counting:
    """Parses, and remembers in which threads; a definition whose ``name`` is "slow" waits for ``gate``."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.begun, self.gate = threading.Event(), threading.Event()

    def __call__(self, raw, /, *, steps_max=None):
        self.threads.append(threading.current_thread().name)
        if raw.get("name") == "slow":
            self.begun.set()
            self.gate.wait(10)
        return parse_definition(raw, kinds=KINDS, steps_max=steps_max)


@pytest.fixture
def parse():
    counting = Counting()
    yield counting
    counting.gate.set()


def stored(definition) -> bytes:
    return json.dumps(definition).encode()


async def check(kept: Definitions, definition, *, allow=lambda: None, charge=lambda _: None) -> None:
    await kept.check(definition, size=len(stored(definition)), allow=allow, charge=charge)


async def turns_until(event: threading.Event) -> None:
    async with asyncio.timeout(10):
        while not event.is_set():
            await asyncio.sleep(0.001)


async def test_others_have_turns_while_a_large_one_is_parsed(parse):
    kept = Definitions(parse, steps_max=None)
    for work in (
        partial(check, kept, LARGE | {"name": "slow"}),
        partial(kept.recorded, stored(LARGE | {"name": "slow"})),
    ):
        parse.begun.clear()
        parse.gate.clear()
        task = asyncio.create_task(work())
        await turns_until(parse.begun)
        await check(kept, SMALL)
        assert not task.done()
        parse.gate.set()
        await task
    assert parse.threads.count(threading.current_thread().name) == 2, "small ones are not worth a thread"


async def test_what_is_recorded_is_parsed_once_for_all_its_runs(parse):
    kept = Definitions(parse, steps_max=None)
    for definition in (LARGE, SMALL):
        found = await asyncio.gather(*(kept.recorded(stored(definition)) for _ in range(20)))
        assert {id(each) for each in found} == {id(await kept.recorded(stored(definition)))}
    assert len(parse.threads) == 2


async def test_those_unused_for_longest_make_room(parse, monkeypatch):
    monkeypatch.setattr(definitions, "KEPT_BYTES_MAX", 10 * LARGE_BYTES)
    kept = Definitions(parse, steps_max=None)
    for number in range(30):
        await kept.recorded(stored(LARGE | {"name": str(number)}))
        await kept.recorded(stored(LARGE))
    assert len(kept._kept) == 9
    assert sum(map(len, kept._kept)) == kept._kept_bytes <= 10 * LARGE_BYTES
    assert len(parse.threads) == 31, "what is used again and again stays"


@pytest.mark.parametrize("definition", [SMALL, LARGE])
async def test_what_is_wrong_is_said_and_has_taken_its_time_too(parse, definition):
    kept = Definitions(parse, steps_max=1)
    charged: list[float] = []
    with pytest.raises(InvalidInput, match="steps"):
        await check(kept, definition | {"steps": [step("a"), step("b")]}, charge=charged.append)
    assert len(charged) == 1
    assert charged[0] > 0
    assert len((await kept.recorded(stored(definition | {"steps": [step("a"), step("b")]}))).steps) == 2
    with pytest.raises(InvalidInput):
        await kept.recorded(stored(definition | {"steps": 1}))


async def test_whoever_waited_too_long_for_a_turn_is_asked_again(parse):
    kept = Definitions(parse, steps_max=None)
    charged: list[float] = []
    first = asyncio.create_task(check(kept, LARGE | {"name": "slow"}, charge=charged.append))
    await turns_until(parse.begun)

    def allow() -> None:
        raise Throttled("no", retry_after_s=1)

    second = asyncio.create_task(check(kept, LARGE, allow=allow, charge=charged.append))
    await asyncio.sleep(0)
    parse.gate.set()
    with pytest.raises(Throttled):
        await second
    await first
    assert (len(parse.threads), len(charged)) == (1, 1)


async def test_whoever_has_gone_is_charged_all_the_same(parse):
    kept = Definitions(parse, steps_max=None)
    charged: list[float] = []
    task = asyncio.create_task(check(kept, LARGE | {"name": "slow"}, charge=charged.append))
    await turns_until(parse.begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    parse.gate.set()
    async with asyncio.timeout(10):
        while not charged:
            await asyncio.sleep(0.001)
