"""The tail: bounded, contiguous, and free for whoever does not use it."""

import asyncio
import random

from service.log import Recorded
from service.log.tail import EVENT_BYTES, Tail
from tests.log.contract import asleep


def recorded(stream: str, seqs: range, first: int, size: int = 10) -> list[Recorded]:
    return [Recorded(stream, seq, first + n, "note", b"x" * size, 0) for n, seq in enumerate(seqs)]


def test_it_holds_the_newest_bytes_and_no_more() -> None:
    tail = Tail(0, {}, bytes_max=10 * (EVENT_BYTES + 10))
    chance = random.Random(1)
    lengths = {"run/a": 0, "run/b": 0, "run/c": 0}
    everything: list[Recorded] = []
    for _ in range(300):
        stream = chance.choice(list(lengths))
        count = chance.randint(1, 4)
        events = recorded(stream, range(lengths[stream], lengths[stream] + count), len(everything) + 1)
        tail.push(events)
        lengths[stream] += count
        everything += events
        kept = sum(map(len, tail._streams.values()))
        assert kept == len(tail._all) <= 10
        assert tail._all == everything[-kept:]
        for name, length in lengths.items():
            of_stream = [event for event in everything if event.stream == name]
            for after in range(max(length - 14, 0) - 1, length + 2):
                page = tail.read(name, after=after, limit=3)
                if page is not None:
                    assert list(page) == of_stream[after + 1 :][:3]
                assert (page is None) == (name not in tail._streams or after + 1 < tail._streams[name][0].seq)
    assert tail.position == len(everything)


def test_an_append_larger_than_the_tail_leaves_it_empty() -> None:
    tail = Tail(0, {}, bytes_max=5_000)
    tail.push(recorded("run/a", range(3), 1, size=4_000))
    assert (tail.position, tail._all, tail._streams, tail._bytes) == (3, [], {}, 0)
    assert tail.last_position({"note"}) == 3
    assert tail.read("run/a", after=1, limit=5) is None
    tail.push(recorded("run/a", range(3, 4), 4))
    assert tail.read("run/a", after=1, limit=5) is None
    assert tail.read("run/a", after=2, limit=5) == recorded("run/a", range(3, 4), 4)


async def test_who_leaves_leaves_nothing() -> None:
    tail = Tail(0, {})
    sleeping = [await asleep(tail.sleepers.sleep(f"run/{n % 5}")) for n in range(20)]
    sleeping += [await asleep(tail.sleepers.sleep_all({"note"})) for _ in range(5)]
    assert len(tail.sleepers) == 25
    for sleeper in sleeping[::2]:
        sleeper.cancel()
    await asyncio.gather(*sleeping[::2], return_exceptions=True)
    assert len(tail.sleepers) == 12
    tail.reset(7, {"note": 7})
    await asyncio.wait_for(asyncio.gather(*sleeping[1::2]), 5)
    assert len(tail.sleepers) == 0
    assert not tail.sleepers._of_stream
