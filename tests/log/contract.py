"""What every Log must do. Subclass ``LogContract`` and give it a ``log`` fixture."""

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from zlib import crc32

import pytest

from service.errors import AppendTooLarge, WrongExpectedSeq
from service.log import APPEND_BYTES_MAX, APPEND_EVENTS_MAX, Log, NewEvent, Recorded
from service.log.follow import follow, follow_all


def new(*texts: str, label: str = "note") -> list[NewEvent]:
    return [NewEvent(label, text.encode()) for text in texts]


def texts(events: Sequence[Recorded]) -> list[str]:
    return [event.data.decode() for event in events]


async def read_stream(log: Log, stream: str, *, after: int = -1) -> list[Recorded]:
    found: list[Recorded] = []
    while page := await log.read(stream, after=found[-1].seq if found else after, limit=7):
        found += page
    return found


async def take(pages, count: int) -> list[Recorded]:
    """Return the first ``count`` events of a follower, which is then closed."""
    found: list[Recorded] = []
    async with asyncio.timeout(10):
        async for page in pages:
            found += page
            if len(found) >= count:
                break
    await pages.aclose()
    return found


async def asleep(coroutine) -> asyncio.Task:
    """Start a coroutine and return once it can get no further by itself."""
    started = asyncio.ensure_future(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    return started


class LogContract:
    # append

    async def test_an_append_says_where_its_last_event_stands(self, log: Log) -> None:
        first = await log.append("run/a", new("0", "1", "2"), expected_seq=-1)
        second = await log.append("run/b", new("0"), expected_seq=-1)
        third = await log.append("run/a", new("3"), expected_seq=2)
        assert (first.seq, second.seq, third.seq) == (2, 0, 3)
        assert first.position < second.position < third.position

    @pytest.mark.parametrize("expected", [-1, 0, 2, 99])
    async def test_a_wrong_expected_seq_is_refused_and_stores_nothing(self, log: Log, expected: int) -> None:
        await log.append("run/a", new("0", "1"), expected_seq=-1)
        with pytest.raises(WrongExpectedSeq) as refused:
            await log.append("run/a", new("x"), expected_seq=expected)
        assert (refused.value.stream, refused.value.expected, refused.value.actual) == ("run/a", expected, 1)
        assert texts(await read_stream(log, "run/a")) == ["0", "1"]
        assert (await log.append("run/a", new("2"), expected_seq=1)).seq == 2

    async def test_a_new_stream_begins_with_minus_one(self, log: Log) -> None:
        with pytest.raises(WrongExpectedSeq) as refused:
            await log.append("run/new", new("x"), expected_seq=0)
        assert refused.value.actual == -1
        assert await read_stream(log, "run/new") == []
        assert (await log.append("run/new", new("x"), expected_seq=-1)).seq == 0

    async def test_of_two_appends_with_one_expectation_one_is_accepted(self, log: Log) -> None:
        answers = await asyncio.gather(
            *(log.append("run/a", new(str(n)), expected_seq=-1) for n in range(20)), return_exceptions=True
        )
        assert sum(not isinstance(answer, Exception) for answer in answers) == 1
        assert sum(isinstance(answer, WrongExpectedSeq) for answer in answers) == 19
        assert len(await read_stream(log, "run/a")) == 1

    async def test_an_append_has_limits(self, log: Log) -> None:
        with pytest.raises(AppendTooLarge):
            await log.append("run/a", new(*["x"] * (APPEND_EVENTS_MAX + 1)), expected_seq=-1)
        with pytest.raises(AppendTooLarge):
            await log.append("run/a", new("x" * APPEND_BYTES_MAX, "x"), expected_seq=-1)
        with pytest.raises(ValueError):
            await log.append("run/a", [], expected_seq=-1)
        assert await read_stream(log, "run/a") == []
        most = await log.append("run/a", new(*["x"] * APPEND_EVENTS_MAX), expected_seq=-1)
        largest = await log.append("run/a", new("x" * APPEND_BYTES_MAX), expected_seq=most.seq)
        assert largest.seq == APPEND_EVENTS_MAX

    async def test_the_chain_covers_every_byte_from_the_streams_name_on(self, log: Log) -> None:
        first = await log.append("run/a", new("0", "1"), expected_seq=-1)
        second = await log.append("run/a", new("2"), expected_seq=1)
        head = sha256(b"run/a").digest()
        heads = [head := sha256(head + data).digest() for data in (b"0", b"1", b"2")]
        assert [first.chain, second.chain] == [heads[1], heads[2]]
        stored = await read_stream(log, "run/a")
        assert [event.chain for event in stored] == [b"", heads[1], heads[2]]

    async def test_a_cancelled_appender_leaves_all_or_nothing(self, log: Log) -> None:
        appending = await asleep(log.append("run/a", new("0", "1"), expected_seq=-1))
        appending.cancel()
        await asyncio.gather(appending, return_exceptions=True)
        await log.append("run/b", new("behind it"), expected_seq=-1)
        assert texts(await read_stream(log, "run/a")) in ([], ["0", "1"])

    # read

    async def test_what_is_read_is_what_was_appended(self, log: Log) -> None:
        data = ["", '{"a":"ä"}', "\x00\n", "z" * 70_000]
        await log.append("run/a", new(*data), expected_seq=-1)
        stored = await read_stream(log, "run/a")
        assert texts(stored) == data
        assert [event.seq for event in stored] == [0, 1, 2, 3]
        assert {(event.stream, event.type) for event in stored} == {("run/a", "note")}
        assert all(event.crc == crc32(event.data) for event in stored)

    @pytest.mark.parametrize(
        ("after", "limit", "expected"),
        [(-1, 3, "012"), (0, 1, "1"), (7, 5, "89"), (9, 5, ""), (50, 5, ""), (-1, 100, "0123456789")],
    )
    async def test_a_page_begins_after_its_cursor(
        self, log: Log, after: int, limit: int, expected: str
    ) -> None:
        await log.append("run/a", new(*"0123"), expected_seq=-1)
        await log.append("run/b", new(*"abc"), expected_seq=-1)
        await log.append("run/a", new(*"456789"), expected_seq=3)
        assert texts(await log.read("run/a", after=after, limit=limit)) == list(expected)

    async def test_an_unknown_stream_is_empty(self, log: Log) -> None:
        assert list(await log.read("run/none", after=-1, limit=5)) == []

    async def test_positions_order_what_every_stream_holds(self, log: Log) -> None:
        for n in range(5):
            await log.append("run/a", new(f"a{n}"), expected_seq=n - 1)
            await log.append("run/b", new(f"b{n}", label="other"), expected_seq=n - 1)
        everything = await log.read_all(after=0, limit=100)
        assert texts(everything) == [f"{stream}{n}" for n in range(5) for stream in "ab"]
        positions = [event.position for event in everything]
        assert positions == sorted(set(positions))
        assert texts(await log.read_all(after=positions[3], limit=2)) == ["a2", "b2"]
        assert list(await log.read_all(after=positions[-1], limit=2)) == []

    async def test_types_select_from_the_log(self, log: Log) -> None:
        batch = [NewEvent(label, str(n).encode()) for n, label in enumerate(["x", "y", "x", "z", "y", "x"])]
        await log.append("run/a", batch, expected_seq=-1)
        all_of = {
            types: texts(await log.read_all(after=0, limit=9, types=types)) for types in ("x", "xz", "q", "")
        }
        assert all_of == {"x": ["0", "2", "5"], "xz": ["0", "2", "3", "5"], "q": [], "": []}
        (first,) = await log.read_all(after=0, limit=1, types=["y", "z"])
        assert first.data == b"1"
        assert texts(await log.read_all(after=first.position, limit=2, types=["y", "z"])) == ["3", "4"]

    # wait

    async def test_wait_tells_the_heads_at_once(self, log: Log) -> None:
        assert await log.wait(None, after=-1) == 0
        assert await log.wait("run/a", after=-2) == -1
        appended = await log.append("run/a", new("0", "1"), expected_seq=-1)
        assert await log.wait(None, after=-1) == appended.position
        assert await log.wait("run/a", after=-2) == 1

    async def test_wait_sleeps_until_its_stream_grows(self, log: Log) -> None:
        waiting = await asleep(log.wait("run/a", after=-1))
        await log.append("run/b", new("0"), expected_seq=-1)
        assert not waiting.done()
        await log.append("run/a", new("0", "1"), expected_seq=-1)
        assert await asyncio.wait_for(waiting, 5) == 1

    async def test_an_append_before_the_wait_counts(self, log: Log) -> None:
        await log.append("run/a", new("0"), expected_seq=-1)
        assert await asyncio.wait_for(log.wait("run/a", after=-1), 5) == 0
        assert await asyncio.wait_for(log.wait(None, after=0), 5) > 0
        assert await asyncio.wait_for(log.wait(None, after=0, types=["note"]), 5) > 0

    async def test_wait_sleeps_through_other_types(self, log: Log) -> None:
        start = (await log.append("run/a", new("0", label="start"), expected_seq=-1)).position
        waiting = await asleep(log.wait(None, after=start, types=["start"]))
        await log.append("run/a", new("1", "2"), expected_seq=0)
        await asyncio.sleep(0)
        assert not waiting.done()
        last = await log.append("run/b", new("0", "1") + new("2", label="start"), expected_seq=-1)
        assert await asyncio.wait_for(waiting, 5) == last.position

    async def test_a_wait_for_a_type_counts_what_came_before(self, log: Log) -> None:
        start = (await log.append("run/a", new("0", label="start"), expected_seq=-1)).position
        await log.append("run/a", new("1"), expected_seq=0)
        assert await asyncio.wait_for(log.wait(None, after=start - 1, types=["start"]), 5) >= start

    async def test_who_is_woken_finds_the_event(self, log: Log) -> None:
        async def watch() -> list[str]:
            await log.wait("run/a", after=-1)
            return texts(await log.read("run/a", after=-1, limit=5))

        watching = [await asleep(watch()) for _ in range(10)]
        await log.append("run/a", new("0", "1"), expected_seq=-1)
        assert await asyncio.gather(*watching) == [["0", "1"]] * 10

    async def test_a_cancelled_waiter_leaves_the_others_asleep(self, log: Log) -> None:
        first, second = await asleep(log.wait("run/a", after=-1)), await asleep(log.wait("run/a", after=-1))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert not second.done()
        await log.append("run/a", new("0"), expected_seq=-1)
        assert await asyncio.wait_for(second, 5) == 0

    # follow

    async def test_follow_goes_from_history_to_live(self, log: Log) -> None:
        await log.append("run/a", new(*"012"), expected_seq=-1)
        following = asyncio.ensure_future(take(follow(log, "run/a", after=0, page_events=2), 6))
        for n in range(3, 7):
            await log.append("run/a", new(str(n)), expected_seq=n - 1)
            await log.append("run/b", new("other"), expected_seq=n - 4)
        assert texts(await following) == list("123456")

    async def test_follow_all_selects_types_for_ever(self, log: Log) -> None:
        following = asyncio.ensure_future(take(follow_all(log, after=0, types=["x"], page_events=2), 5))
        for n in range(5):
            await log.append("run/a", new("no", label="y") + new(str(n), label="x"), expected_seq=2 * n - 1)
        assert texts(await following) == list("01234")

    async def test_follow_ahead_of_the_stream_begins_there(self, log: Log) -> None:
        following = await asleep(take(follow(log, "run/a", after=2), 1))
        for n in range(4):
            await log.append("run/a", new(str(n)), expected_seq=n - 1)
        assert texts(await following) == ["3"]
