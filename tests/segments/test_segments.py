"""What readers get of a run that is sealed, being sealed, or not yet: always the rows, byte for byte."""

import asyncio
import os
import random
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.log.sqlite import SqliteLog
from service.segments import Segments
from service.segments.cut import STRETCH_BYTES_MAX, STRETCH_EVENTS_MAX
from service.segments.file import frames_path
from service.segments.frames_file import FramesFile
from service.segments.sealer import REMEMBER_RUNS
from service.wire import frames
from tests.segments.house import (
    SEAL,
    all_of,
    append,
    append_run,
    event,
    opened,
    rows,
    running,
    sealed,
    until,
)

LENGTHS = (1, 125, 126, 204, 65_535, 65_536, 262_130, 300_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tailrace.db"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog.open(path)
    yield log
    await log.close()


def stretches(lengths: list[int], *, over: bool = True) -> list[tuple[int, int]]:
    """Return first and last seq of each stretch that is sealed: the rule, said in another way than in the code."""
    sizes = [length + (2 if length < 126 else 4 if length < 65_536 else 10) for length in lengths]
    found, first = [], 0
    for n in range(len(sizes)):
        held = sizes[first : n + 1]
        if len(held) > 1 and sum(held) > STRETCH_BYTES_MAX:
            found.append((first + 1, n))
            first = n
            held = sizes[n : n + 1]
        if len(held) == STRETCH_EVENTS_MAX or sum(held) >= STRETCH_BYTES_MAX:
            found.append((first + 1, n + 1))
            first = n + 1
    if over and found and first < len(sizes):
        found.append((first + 1, len(sizes)))
    return found


async def check(
    segments: Segments, log: SqliteLog, stream: str, lengths: list[int], *, over: bool = True
) -> None:
    stored = await rows(log, stream)
    found = await all_of(segments, stream)
    assert [(segment.first_seq, segment.last_seq) for segment in found] == stretches(lengths, over=over)
    for segment in found:
        for after in {segment.first_seq - 1, segment.first_seq, segment.last_seq - 1}:
            rest = stored[after + 1 : segment.last_seq + 1]
            assert list(segment.payloads(after)) == [(row.seq, row.data) for row in rest]
            framed = [text for text, _ in frames.text_frames(rest)]
            assert segment.text_frames(after).left() == b"".join(framed)
            for form in ("server_sent_events", "lines"):
                assert list(getattr(segment, form)(after)) == list(getattr(frames, form)(rest))
        for after in {segment.first_seq - 1, segment.last_seq - 1}:
            assert (await segments.after(stream, after)).data == segment.data
    end = found[-1].last_seq if found else 0
    assert stored[end].type != SEAL
    assert not (found and over) or stored[end + 1].type == SEAL, "all of it"
    for after in (-1, end, len(stored) - 1, len(stored), 10**12):
        assert await segments.after(stream, after) is None, "neither header, nor seal, nor what is not there"


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.sampled_from(LENGTHS) | st.integers(0, 400), max_size=60),
    st.sampled_from((0, 1_023, 1_024, 1_025, 2_048, 2_500)),
    st.booleans(),
)
async def test_every_full_stretch_of_a_run_is_its_rows(lengths, more, over):
    lengths = [*lengths, *[30] * more]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tailrace.db"
        log = SqliteLog.open(path)
        await append_run(log, "run/a", lengths, over=over)
        await append_run(log, "run/b", [5])
        async with running(path, log) as segments:
            await until(lambda: segments._shelf.ready)
            segments.wanted("run/a", 0)
            expected = stretches(lengths, over=over)
            await sealed(segments, "run/a", expected[-1][1] if expected else 0)
            await check(segments, log, "run/a", lengths, over=over)
        await log.close()


async def test_a_long_run_is_sealed_when_it_is_over_and_a_short_one_costs_nothing(path, log):
    async with running(path, log) as segments:
        await append_run(log, "run/short", [100] * 1_023)
        await append_run(log, "run/live", [100] * 3_000, over=False)
        await append_run(log, "run/long", [100] * 1_024)
        await append_run(log, "run/longer", [100] * 3_000)
        await sealed(segments, "run/longer", 3_000)
        assert [len(await all_of(segments, f"run/{name}")) for name in ("short", "live", "long", "longer")] == [
            0, 0, 1, 3,
        ]  # fmt: skip
        await check(segments, log, "run/long", [100] * 1_024)


async def test_it_is_the_same_whoever_seals_it_and_whenever(path, log):
    chance = random.Random(7)
    lengths = [chance.choice((*LENGTHS, 50, 100, 150)) if n % 50 == 0 else 300 for n in range(5_000)]
    stream, other = "run/a", SqliteLog.open(path.with_name("other.db"))
    await append_run(other, stream, lengths)
    async with running(path, log) as segments:
        await until(lambda: segments._shelf.ready)
        seq = await append_run(log, stream, [], over=False)
        while seq < len(lengths):
            count = chance.randint(1, 700)
            batch = [event(n, lengths[n - 1]) for n in range(seq + 1, min(seq + count, len(lengths)) + 1)]
            seq = await append(log, stream, batch, seq)
            segments.wanted(stream, segments._shelf.end(stream))
            await asyncio.sleep(chance.choice((0, 0, 0.002, 0.02)))
        segments.wanted(stream, seq - 1)
        await sealed(segments, stream, stretches(lengths, over=False)[-1][1])
        live = await all_of(segments, stream)
    async with running(path.with_name("other.db"), other) as segments:
        await sealed(segments, stream, stretches(lengths)[-1][1])
        over = await all_of(segments, stream)
    assert [each.data for each in live] == [each.data for each in over[:-1]]
    assert over[-1].first_seq == live[-1].last_seq + 1, "the rest, once the run is over"
    await other.close()


async def test_a_reader_sees_no_seam_while_it_is_sealed(path, log):
    lengths = [200] * 30_000
    await append_run(log, "run/a", lengths)
    stored = [(row.seq, row.data) for row in await rows(log, "run/a")]
    ways = set()

    async def replay(segments: Segments) -> None:
        chance = random.Random(len(ways))
        after, seen = 0, []
        while after < len(stored) - 1:
            segment = await segments.after("run/a", after)
            ways.add(segment is not None)
            if segment is not None:
                seen += segment.payloads(after)
            else:
                page = await log.read("run/a", after=after, limit=chance.randint(1, 800))
                seen += [(row.seq, row.data) for row in page]
            after = seen[-1][0]
            await asyncio.sleep(0)
        assert seen == stored[1:]

    async with running(path, log) as segments:
        while segments._shelf.end("run/a") < 29 * 1_024:
            await asyncio.gather(*(replay(segments) for _ in range(3)))
        await replay(segments)
    assert ways == {True, False}


async def test_a_wish_before_it_is_ready_or_for_what_is_not_there_does_no_harm(path, log):
    segments = opened(path, log)
    await append_run(log, "run/a", [100] * 3_000, over=False)
    segments.wanted("run/a", 0)
    assert await segments.after("run/a", 0) is None
    await segments.close()
    async with running(path, log) as segments:
        await until(lambda: segments._shelf.ready)
        for n in range(1_000):
            segments.wanted(f"run/none{n}", 0)
        await until(lambda: not segments._sealer._wanted)
        segments.wanted("run/a", 5)
        await sealed(segments, "run/a", 2_048)
    assert await segments.after("run/a", 0) is None, "closed"


async def test_many_short_runs_are_passed_over_by_turns_and_remembered(path, log):
    runs = REMEMBER_RUNS + 1_000
    await asyncio.gather(*(append_run(log, f"run/{n}", [10]) for n in range(runs)))
    turns, pages = 0, []

    class Watched:
        def __getattr__(self, name: str):
            return getattr(log, name)

        async def read_all(self, **options):
            page = await log.read_all(**options)
            pages.append((turns, len(page)))
            return page

    async with running(path, Watched()) as segments:
        while not segments._shelf.ready or segments._sealer._asleep is None:
            turns += 1
            await asyncio.sleep(0)
        assert segments._shelf._file.marks().ended.position >= REMEMBER_RUNS, "they are not passed over again"
    assert sum(count for _, count in pages) == runs
    moments = [turn for turn, _ in pages]
    assert moments == sorted(set(moments)), "somebody else had a turn after each page"


async def test_it_is_found_again_and_not_sealed_again(path, log):
    await append_run(log, "run/a", [100] * 3_000)
    async with running(path, log) as segments:
        await until(lambda: segments._shelf.ready and segments._shelf._file.marks().ended.stream == "run/a")
        before = await all_of(segments, "run/a")
    asked: list[str] = []

    class Watched:
        def __getattr__(self, name: str):
            return getattr(log, name)

        async def read(self, stream: str, **options):
            asked.append(stream)
            return await log.read(stream, **options)

    await append_run(log, "run/b", [100] * 1_500)
    async with running(path, Watched()) as segments:
        await sealed(segments, "run/b", 1_024)
        after = await all_of(segments, "run/a")
    assert [segment.data for segment in after] == [segment.data for segment in before]
    assert set(asked) == {"run/b"}


# The shared bytes


def forget(segments: Segments) -> None:
    """Make the kernel forget the frames, so that they must be had from the disk."""
    with frames_path(segments._shelf.path).open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def from_the_disk(segments: Segments, monkeypatch) -> Iterator[list[int]]:
    """Have nothing in memory, and give the sizes of what the disk is asked for."""
    asked: list[int] = []
    read = FramesFile.read

    def reading(self, at: int, size: int) -> bytes:
        asked.append(size)
        return read(self, at, size)

    with monkeypatch.context() as patched:
        patched.setattr(FramesFile, "read", reading)
        forget(segments)
        if segments._shelf._file._frames.read_now(0, 1) is not None:  # a file system in memory
            patched.setattr(FramesFile, "read_now", lambda *_: None)
        yield asked


async def test_what_is_in_memory_is_had_at_once(path, log, monkeypatch):
    await append_run(log, "run/a", [100] * 5_000)
    async with running(path, log, cache_bytes_max=0) as segments:
        await sealed(segments, "run/a", 5_000)
        monkeypatch.setattr(FramesFile, "read", None)
        with pytest.raises(StopIteration) as got:
            segments.after("run/a", 3_000).send(None)
        assert got.value.value.first_seq == 2_049
        assert not segments._shelf._loading


async def test_those_who_come_together_share_one_load_from_the_disk(path, log, monkeypatch):
    await append_run(log, "run/a", [100] * 5_000)
    async with running(path, log, cache_bytes_max=0) as segments:
        await sealed(segments, "run/a", 5_000)
        with from_the_disk(segments, monkeypatch) as asked:
            asking = [asyncio.create_task(segments.after("run/a", 4_500 + n)) for n in range(20)]
            await asyncio.sleep(0)
            asking[0].cancel()  # who came first has begun the load
            found = await asyncio.gather(*asking[1:])
        assert len(set(map(id, found))) == len(asked) == 1
        assert found[0].first_seq == 4_097


async def test_from_the_disk_it_is_the_same(path, log, monkeypatch):
    lengths = [random.Random(n).choice((*LENGTHS, 100, 100, 100)) for n in range(1_500)]
    await append_run(log, "run/a", lengths)
    async with running(path, log, cache_bytes_max=0) as segments:
        await sealed(segments, "run/a", 1_500)
        with from_the_disk(segments, monkeypatch) as asked:
            await check(segments, log, "run/a", lengths)
            assert asked


async def test_a_segment_is_kept_for_the_next_reader_within_the_bound(path, log):
    await append_run(log, "run/a", [1_000] * 3_000)
    kept_max = 700_000
    async with running(path, log, cache_bytes_max=kept_max) as segments:
        await sealed(segments, "run/a", 3_000)
        found = await all_of(segments, "run/a")
        assert sum(segment.size for segment in found) > 3 * kept_max
        assert 0 < segments._shelf._cache.size <= kept_max
        assert await segments.after("run/a", found[-1].first_seq) is found[-1]
        again = await segments.after("run/a", 0)
        assert again is not found[0]
        assert again.data == found[0].data
        assert 0 < segments._shelf._cache.size <= kept_max


async def test_what_a_reader_will_want_next_is_loaded_while_it_waits_for_the_disk(path, log, monkeypatch):
    await append_run(log, "run/a", [100] * 6_000)
    async with running(path, log) as segments:
        await sealed(segments, "run/a", 6_000)
        with from_the_disk(segments, monkeypatch):
            await segments.after("run/a", 0)
            await until(lambda: ("run/a", 2_049) in segments._shelf._cache)
            await until(lambda: not segments._shelf._loading)
            assert ("run/a", 4_097) not in segments._shelf._cache, "not the whole run"
