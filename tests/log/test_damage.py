"""Damage is noticed: nothing altered is delivered, and what is whole stays readable."""

import random
import sqlite3
from pathlib import Path

import pytest

from service.errors import Damaged, LogError, LogUnavailable
from service.log.sqlite import SqliteLog
from tests.log.contract import new, texts

EVENTS = 9


async def written(path: Path) -> Path:
    log = SqliteLog.open(path)
    for seq in range(0, EVENTS, 3):
        await log.append("run/a", new(*(f"event {n}" for n in range(seq, seq + 3))), expected_seq=seq - 1)
        await log.append("run/b", new(f"other {seq}", label="other"), expected_seq=seq // 3 - 1)
    await log.close()
    return path


def alter(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as db:
        assert db.execute(sql).rowcount == 1
    db.close()


@pytest.mark.parametrize(
    "column",
    ["data = CAST('event X' AS BLOB)", "data = x''", "crc = crc + 1", "type = 2", "type = 77", "seq = 70", "stream = 2, seq = 70"],
)  # fmt: skip
async def test_an_altered_row_is_reported_with_its_seq(tmp_path: Path, column: str) -> None:
    path = await written(tmp_path / "tailrace.db")
    alter(path, f"UPDATE events SET {column} WHERE stream = 1 AND seq = 4")
    log = SqliteLog.open(path)
    assert texts(await log.read("run/a", after=-1, limit=50)) == [f"event {n}" for n in range(4)]
    with pytest.raises(Damaged) as damaged:
        await log.read("run/a", after=3, limit=50)
    assert (damaged.value.stream, damaged.value.seq) == ("run/a", 4)
    assert texts(await log.read("run/a", after=4, limit=50)) == [f"event {n}" for n in range(5, 9)]
    if "70" not in column:
        page = await log.read_all(after=0, limit=50)
        assert [event.seq for event in page if event.stream == "run/a"] == [0, 1, 2, 3]
        with pytest.raises(Damaged) as damaged:
            await log.read_all(after=page[-1].position, limit=50)
        assert damaged.value.seq == 4
    assert texts(await log.read("run/b", after=-1, limit=3)) == ["other 0", "other 3", "other 6"]
    await log.close()


@pytest.mark.parametrize("row", ["events", "streams"])
async def test_nothing_is_appended_to_a_damaged_end(tmp_path: Path, row: str) -> None:
    path = await written(tmp_path / "tailrace.db")
    where = "stream = 1 AND seq = 8" if row == "events" else "id = 1"
    alter(path, f"UPDATE {row} SET chain = zeroblob(32) WHERE {where}")
    log = SqliteLog.open(path)
    with pytest.raises(Damaged):
        await log.append("run/a", new("on top"), expected_seq=8)
    if row == "events":
        with pytest.raises(Damaged):
            await log.read("run/a", after=7, limit=1)
    assert (await log.append("run/b", new("fine"), expected_seq=2)).seq == 3
    await log.close()


@pytest.mark.parametrize(("table", "name"), [("types", "note"), ("streams", "run/a")])
async def test_an_altered_name_is_not_delivered(tmp_path: Path, table: str, name: str) -> None:
    path = await written(tmp_path / "tailrace.db")
    alter(path, f"UPDATE {table} SET name = 'altered' WHERE name = '{name}'")
    log = SqliteLog.open(path)
    with pytest.raises(Damaged):
        await log.read_all(after=0, limit=5)
    with pytest.raises(Damaged):
        await log.read("run/a" if table == "types" else "altered", after=-1, limit=5)
    await log.close()


async def test_a_missing_row_is_damage(tmp_path: Path) -> None:
    path = await written(tmp_path / "tailrace.db")
    alter(path, "DELETE FROM events WHERE stream = 1 AND seq = 4")
    log = SqliteLog.open(path)
    assert len(await log.read("run/a", after=-1, limit=50)) == 4
    with pytest.raises(Damaged):
        await log.read("run/a", after=3, limit=50)
    await log.close()


async def test_a_log_that_lost_its_end_misses_it(tmp_path: Path) -> None:
    path = await written(tmp_path / "tailrace.db")
    with sqlite3.connect(path) as db:
        assert db.execute("DELETE FROM events WHERE position > 6").rowcount == 6
    db.close()
    log = SqliteLog.open(path)
    for stream, left in (("run/a", 5), ("run/b", 1)):
        assert len(await log.read(stream, after=-1, limit=50)) == left
        with pytest.raises(Damaged) as damaged:
            await log.read(stream, after=left - 1, limit=50)
        assert damaged.value.seq == left
        with pytest.raises(Damaged):
            await log.append(stream, new("on top"), expected_seq=8 if stream == "run/a" else 2)
    assert (await log.append("run/c", new("fine"), expected_seq=-1)).position == 13
    await log.close()


@pytest.mark.parametrize(
    "alteration", ["last_seq = 2", "last_seq = 70", "last_position = 1", "last_position = 999"]
)
async def test_a_stream_that_does_not_know_its_end_is_read_to_it(tmp_path: Path, alteration: str) -> None:
    path = await written(tmp_path / "tailrace.db")
    alter(path, f"UPDATE streams SET {alteration} WHERE id = 1")
    log = SqliteLog.open(path)
    assert await log.wait("run/a", after=-2) == (70 if "70" in alteration else 8)
    for after in (-1, 2, 5):
        page = await log.read("run/a", after=after, limit=50)
        assert texts(page) == [f"event {n}" for n in range(after + 1, 9)]
    if "70" in alteration:
        with pytest.raises(Damaged):
            await log.read("run/a", after=8, limit=50)
    await log.close()


@pytest.mark.parametrize("alteration", ["DELETE FROM places", "UPDATE places SET position = 2"])
async def test_a_wrong_index_is_damage(tmp_path: Path, alteration: str) -> None:
    path = await written(tmp_path / "tailrace.db")
    alter(path, f"{alteration} WHERE stream = 1 AND seq = 4")
    log = SqliteLog.open(path)
    assert texts(await log.read("run/a", after=-1, limit=50)) == [f"event {n}" for n in range(4)]
    with pytest.raises(Damaged):
        await log.read("run/a", after=3, limit=50)
    await log.close()


async def test_a_lost_end_is_damage(tmp_path: Path) -> None:
    path = await written(tmp_path / "tailrace.db")
    alter(path, "DELETE FROM events WHERE stream = 1 AND seq = 8")
    log = SqliteLog.open(path)
    assert len(await log.read("run/a", after=-1, limit=50)) == 8
    with pytest.raises(Damaged):
        await log.read("run/a", after=7, limit=50)
    await log.close()


@pytest.mark.parametrize(
    "alteration", ["DELETE FROM placed", "UPDATE types SET name = CAST(x'ff' AS TEXT) WHERE name = 'note'"]
)
async def test_a_file_that_cannot_be_made_sense_of_does_not_open(tmp_path: Path, alteration: str) -> None:
    path = await written(tmp_path / "tailrace.db")
    alter(path, alteration)
    with pytest.raises(LogUnavailable, match="damaged|decode"):
        SqliteLog.open(path)


async def test_a_file_whose_index_of_types_is_damaged_does_not_open(tmp_path: Path) -> None:
    path = await written(tmp_path / "tailrace.db")
    with sqlite3.connect(path) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'typed'").fetchone()
    db.close()
    content = bytearray(path.read_bytes())
    content[(root - 1) * 4096 : (root - 1) * 4096 + 50] = b"x" * 50
    path.write_bytes(content)
    with pytest.raises(LogUnavailable, match="malformed"):
        SqliteLog.open(path)


@pytest.mark.parametrize("seed", range(100))
async def test_no_flipped_bit_alters_an_event(tmp_path: Path, seed: int) -> None:
    """One to three bits flipped anywhere in the file, or the file cut: whole events or an error."""
    chance = random.Random(seed)
    path = await written(tmp_path / "tailrace.db")
    content = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 3)):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    if seed % 10 == 0:
        del content[chance.randrange(len(content)) :]
    path.write_bytes(content)
    try:
        log = SqliteLog.open(path)
    except LogUnavailable:
        return
    for stream, expected in (
        ("run/a", [f"event {n}" for n in range(EVENTS)]),
        ("run/b", [f"other {n}" for n in range(0, EVENTS, 3)]),
    ):
        for after in range(-1, EVENTS):
            try:
                page = await log.read(stream, after=after, limit=50)
            except LogError:
                continue
            assert texts(page) == expected[after + 1 :][: len(page)]
    for after in range(12):
        try:
            page = await log.read_all(after=after, limit=50)
        except LogError:
            continue
        for event in page:
            number = f"event {event.seq}" if event.type == "note" else f"other {event.seq * 3}"
            assert (event.data.decode(), event.stream) == (
                number,
                "run/a" if event.type == "note" else "run/b",
            )
    await log.close()
