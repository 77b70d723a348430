"""A log's file is looked at from end to end: what is wrong is told with its place, and nothing else is told."""

import sqlite3
from pathlib import Path

import pytest

from service.errors import Damaged
from service.log.copy import Copy, NotWhole, lines_of, recorded_of
from service.log.sqlite import SqliteLog
from service.log.verify import NoLog, pages, verify
from tests.log.contract import new
from tests.log.test_damage import alter, written


async def test_a_whole_log_has_no_faults_and_is_not_changed(tmp_path: Path) -> None:
    path = await written(tmp_path / "tailrace.db")
    before, beside = path.read_bytes(), sorted(tmp_path.iterdir())
    told: list[tuple[int, int]] = []
    verdict = verify(path, lambda done, of: told.append((done, of)))
    assert (verdict.events, verdict.streams, verdict.position) == (12, 2, 12)
    assert (verdict.newest, verdict.faults, verdict.faults_count) == (b"other 6", [], 0)
    assert told[-1] == (12, 12)
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == beside, "and nothing appears beside it"


async def test_what_only_the_wal_holds_counts(tmp_path: Path) -> None:
    log = SqliteLog.open(tmp_path / "tailrace.db")
    await log.append("run/a", new("one", "two"), expected_seq=-1)
    for suffix in ("", "-wal"):
        (tmp_path / f"copy{suffix}").write_bytes((tmp_path / f"tailrace.db{suffix}").read_bytes())
    await log.close()
    assert verify(tmp_path / "copy").events == 2


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE events SET data = CAST('event X' AS BLOB) WHERE stream = 1 AND seq = 4",
         ["run/a: event 4 is damaged (position 6)"]),
        ("UPDATE events SET seq = 70 WHERE stream = 1 AND seq = 4",
         ["run/a: event 4 is damaged (position 6)", "the index places lacks 1 events and has 0 too many"]),
        ("DELETE FROM events WHERE stream = 1 AND seq = 4",
         ["position 6 is missing", "run/a: event 4 is missing",
          "the index places lacks 0 events and has 1 too many"]),
        ("DELETE FROM events WHERE stream = 1 AND seq = 8", ["run/a: ends at event 7, not 8"]),
        ("DELETE FROM events WHERE stream = 2 AND seq = 2", ["run/b: ends at event 1, not 2"]),
        ("UPDATE events SET chain = zeroblob(32) WHERE stream = 1 AND seq = 5", ["run/a: event 5 is damaged"]),
        ("UPDATE streams SET chain = zeroblob(32) WHERE id = 1", ["run/a: its end does not fit event 8"]),
        ("UPDATE streams SET last_seq = 4 WHERE id = 1", ["run/a: event 5 stands behind its end, 4"]),
        ("UPDATE streams SET name = 'run/c' WHERE id = 1", ["run/c: event 0 is damaged"]),
        ("DELETE FROM streams WHERE id = 1", ["position 1 is damaged, of no known stream"]),
        ("UPDATE types SET name = 'x' WHERE name = 'other'", ["run/b: event 0 is damaged"]),
        ("UPDATE places SET position = 2 WHERE stream = 1 AND seq = 4",
         ["the index places lacks 1 events and has 0 too many"]),
        ("DELETE FROM typed WHERE position = 3", ["the index typed lacks 1 events and has 0 too many"]),
        ("INSERT INTO typed VALUES (1, 70)", ["the index typed lacks 0 events and has 1 too many"]),
    ],
)  # fmt: skip
async def test_each_damage_is_told_with_its_place(tmp_path: Path, sql: str, said: list[str]) -> None:
    path = await written(tmp_path / "tailrace.db")
    alter(path, sql)
    faults = verify(path).faults
    for each in said:
        assert any(fault.startswith(each) for fault in faults), faults


async def test_an_altered_chain_with_the_right_checksums_is_found(tmp_path: Path) -> None:
    """Whoever can write checksums can still not write the chain of what was there before."""
    path = await written(tmp_path / "tailrace.db")
    log = SqliteLog.open(tmp_path / "forged.db")
    await log.append("run/a", new("event 0", "event 1", "event 2"), expected_seq=-1)
    await log.append("run/b", new("other 0", label="other"), expected_seq=-1)
    await log.append("run/a", new("event 3", "event X", "event 5"), expected_seq=2)
    await log.close()
    with sqlite3.connect(path) as db:
        db.execute("ATTACH ? AS forged", (str(tmp_path / "forged.db"),))
        db.execute("REPLACE INTO events SELECT * FROM forged.events WHERE seq IN (3, 4, 5)")
    db.close()
    assert "run/a: the chain does not fit at event 8" in verify(path).faults


async def test_damaged_pages_are_told(tmp_path: Path) -> None:
    path = await written(tmp_path / "tailrace.db")
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    path.write_bytes(data)
    verdict = verify(path)
    assert verdict.faults
    assert verdict.faults[0].startswith("SQLite: ")


async def test_the_last_events_cut_off_a_file_are_missed(tmp_path: Path) -> None:
    path = await written(tmp_path / "tailrace.db")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 4096])
    verdict = verify(path)
    assert (verdict.events, verdict.faults_count) == (0, 1)
    assert "malformed" in verdict.faults[0]


@pytest.mark.parametrize(("content", "said"), [(None, "is not there"), (b"my diary " * 900, "cannot be read"), (b"", "is not a log")])  # fmt: skip
def test_what_is_no_log_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(NoLog, match=said):
        verify(tmp_path / "x")


async def test_a_log_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = await written(tmp_path / "tailrace.db")
    alter(path, "INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('log', 'of_tomorrow')")
    with pytest.raises(NoLog, match=r"newer version \(of_tomorrow\)"):
        verify(path)


# Copies


async def copied(path: Path, tmp_path: Path, change=lambda events: events) -> Path:
    events = change([event for page, _ in pages(path) for event in page])
    copy = Copy(tmp_path / "copy.db")
    try:
        copy.add(recorded_of(line) for line in lines_of(events).splitlines())
        copy.finish()
    finally:
        copy.close()
    return tmp_path / "copy.db"


async def test_a_copy_holds_the_same_events_at_the_same_places(tmp_path: Path) -> None:
    path = await written_json(tmp_path / "tailrace.db")
    copy = await copied(path, tmp_path)
    assert verify(copy).faults == []
    assert [page for page, _ in pages(copy)] == [page for page, _ in pages(path)]
    assert sorted(each.name for each in tmp_path.glob("copy.db*")) == ["copy.db"]
    log = SqliteLog.open(copy)
    assert (await log.append("run/a", new("on"), expected_seq=8)).position == 13
    await log.close()


async def written_json(path: Path) -> Path:
    log = SqliteLog.open(path)
    for seq in range(0, 9, 3):
        texts = [f'{{"n":{n},"é":"\\u0000"}}' for n in range(seq, seq + 3)]
        await log.append("run/a", new(*texts), expected_seq=seq - 1)
        await log.append("signal/b", new("{}", label="other"), expected_seq=seq // 3 - 1)
    await log.close()
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda events: events[4:],
        lambda events: events[:5] + events[6:],
        lambda events: [*events[:6], events[5], *events[6:]],
        lambda events: events[:-2],
        lambda events: [*events[:4], *events[4:8][::-1], *events[8:]],
    ],
    ids=["no start", "lost", "doubled", "cut inside an append", "swapped"],
)
async def test_a_copy_of_what_is_not_whole_is_refused(tmp_path: Path, change) -> None:
    path = await written_json(tmp_path / "tailrace.db")
    with pytest.raises(NotWhole):
        await copied(path, tmp_path, change)


async def test_a_copy_of_an_altered_event_is_refused(tmp_path: Path) -> None:
    path = await written_json(tmp_path / "tailrace.db")
    lines = lines_of(event for page, _ in pages(path) for event in page).replace(b'"n":4', b'"n":5')
    copy = Copy(tmp_path / "copy.db")
    copy.add(recorded_of(line) for line in lines.splitlines())
    with pytest.raises(Damaged, match="run/a: the stored event 5 does not fit its checksum"):
        copy.finish()
    copy.close()
    with pytest.raises(NotWhole):
        recorded_of(b'{"stream": 1}')
