"""A page of the log's file is destroyed: whoever reads the whole log loses what was in it, and nothing else."""

import asyncio
import shutil
import sqlite3
from collections.abc import Collection
from pathlib import Path

import pytest

from service.errors import Damaged, LogUnavailable
from service.log import Log, NewEvent, Recorded
from service.log.reader import UNREADABLE_MAX
from service.log.sqlite import SqliteLog
from service.log.verify import verify

PAGE = 4096
STREAMS = 60
ROUNDS = 10  # of ten events of 600 bytes to each stream: a thousand pages, and several that lead to them
EVENTS = STREAMS * ROUNDS * 10


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "tailrace.db"
    asyncio.run(write(path))
    return path


def stream(number: int) -> str:
    return f"run/{number}/{'x' * 150}"  # so long that their names fill pages, too


async def write(path: Path) -> None:
    log = SqliteLog.open(path)
    for start in range(0, ROUNDS * 10, 10):
        types = ["note"] * 9 + ["end"]
        for number in range(STREAMS):
            events = [NewEvent(type_, b"%600d" % (start + n)) for n, type_ in enumerate(types)]
            await log.append(stream(number), events, expected_seq=start - 1)
    await log.close()


@pytest.fixture
def path(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(kept, tmp_path))


def destroy(path: Path, table: str, kind: str) -> None:
    """Destroy a page of ``table`` that is neither its first nor its last."""
    db = sqlite3.connect(path)
    query = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = ? ORDER BY path"
    found = [number for (number,) in db.execute(query, (table, kind)).fetchall()]
    db.close()
    assert len(found) > 2, "one has others on either side"
    with path.open("r+b") as file:
        file.seek((found[len(found) // 2] - 1) * PAGE)
        file.write(bytes(PAGE))


async def walked(log: Log, types: Collection[str] | None = None) -> tuple[list[Recorded], list[Damaged]]:
    """Read the log, going on behind what is damaged."""
    found: list[Recorded] = []
    damage: list[Damaged] = []
    after = 0
    while True:
        try:
            page = await log.read_all(after=after, limit=500, types=types)
        except Damaged as error:
            damage.append(error)
            after = error.position or after
            continue
        if not page:
            places = [error.position for error in damage]
            assert places == sorted(set(places)), "each is told once, on the way"
            return found, damage
        found += page
        after = page[-1].position


@pytest.mark.parametrize(("kind", "lost_max"), [("leaf", 10), ("internal", 4_000)])
async def test_a_page_of_events(path: Path, kind: str, lost_max: int) -> None:
    destroy(path, "events", kind)
    log = SqliteLog.open(path)
    found, damage = await walked(log)
    positions = {event.position for event in found}
    lost = sorted(set(range(1, EVENTS + 1)) - positions)
    assert 1 < len(lost) <= lost_max
    assert lost == list(range(lost[0], lost[-1] + 1)), "what is whole beside it is not lost"
    assert len(damage) == -(-len(lost) // UNREADABLE_MAX)
    assert damage[-1].position == lost[-1]
    assert damage[0].position == min(lost[0] + UNREADABLE_MAX - 1, lost[-1])
    assert "cannot be read at position" in str(damage[-1])

    ends, _ = await walked(log, ["end"])
    assert ends == [event for event in found if event.type == "end"]
    await log.close()


async def test_a_page_of_what_finds_events_by_their_type(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    destroy(path, "typed", "leaf")
    log = SqliteLog.open(path)
    found, damage = await walked(log, ["note"])
    assert [event.position for event in found] == [n for n in range(1, EVENTS + 1) if n % 10]
    assert not damage
    assert capsys.readouterr().out.count("the index of types is damaged") == 1
    await log.close()
    verdict = verify(path)
    assert verdict.events == EVENTS
    assert verdict.faults, "it is told, though no event is lost"


async def test_what_leads_to_an_event_of_another_type(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE typed SET position = 55 WHERE position = 50")
    db.close()
    log = SqliteLog.open(path)
    ends, damage = await walked(log, ["end"])
    assert [event.position for event in ends] == list(range(10, EVENTS + 1, 10))
    assert not damage
    await log.close()


async def test_the_name_of_a_stream(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE streams SET name = CAST(x'72756e2fff' AS TEXT) WHERE id = 8")
    db.close()
    log = SqliteLog.open(path)
    found, damage = await walked(log)
    assert {event.stream for event in found} == {stream(n) for n in range(STREAMS) if n != 7}
    assert len(found) + len(damage) == EVENTS
    await log.close()


async def test_the_names_of_some_streams(path: Path) -> None:
    log = SqliteLog.open(path)  # it would not, afterwards
    destroy(path, "streams", "leaf")
    found, damage = await walked(log)
    assert len(found) + len(damage) == EVENTS
    whole = {event.stream for event in found}
    assert STREAMS // 4 < len(whole) < STREAMS
    assert len(found) == len(whole) * ROUNDS * 10
    await log.close()


async def test_the_names_of_all_types(path: Path) -> None:
    log = SqliteLog.open(path)
    with sqlite3.connect(path) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'types'").fetchone()
    db.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * PAGE)
        file.write(bytes(PAGE))
    for types in (None, ["end"]):
        with pytest.raises(LogUnavailable, match="malformed"):  # nothing is passed over: it may be read again
            await log.read_all(after=0, limit=5, types=types)
    await log.close()
