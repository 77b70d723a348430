"""The views file can be lost, damaged, or belong to another log: it is made again, and says the same."""

import asyncio
import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from service.domain.events import encode_value
from service.errors import Damaged, LogUnavailable, NotCaughtUp
from service.log import NewEvent
from service.log.memory import MemoryLog
from service.log.sqlite import SqliteLog
from service.projection import Projections, RunFilter, views
from tests.projection.histories import append_frames, append_run, guide_frames, run_id_of, start
from tests.projection.house import projecting, tables

RUNS = 40


@pytest.fixture
async def log():
    log = MemoryLog()
    for number in range(RUNS):
        await append_frames(log, run_id_of(number), guide_frames())
    return log


async def made(path: Path, log) -> dict[str, list[tuple]]:
    async with projecting(path, log) as projections:
        await projections.caught_up(10)
    return tables(path)


@pytest.fixture
async def right(tmp_path: Path, log) -> dict[str, list[tuple]]:
    rows = await made(tmp_path / "right", log)
    assert len(rows["runs"]) == RUNS
    return rows


class Counting:
    """A log that counts what is read of it."""

    def __init__(self, log) -> None:
        self._log = log
        self.events = 0

    async def read_all(self, **asked):
        page = await self._log.read_all(**asked)
        self.events += len(page)
        return page

    def __getattr__(self, name: str):
        return getattr(self._log, name)


async def test_a_restart_goes_on_from_the_checkpoint(tmp_path: Path, log, right) -> None:
    await append_frames(log, "later", guide_frames())
    counting = Counting(log)
    rows = await made(tmp_path / "right", counting)
    assert counting.events < 30
    assert len(rows["runs"]) == RUNS + 1
    assert rows == await made(tmp_path / "afresh", log)


async def test_a_lost_file_is_made_again(tmp_path: Path, log, right) -> None:
    (tmp_path / "right").unlink()
    assert await made(tmp_path / "right", log) == right


async def test_a_file_of_other_code_is_made_again(tmp_path: Path, log, right, monkeypatch) -> None:
    with sqlite3.connect(tmp_path / "right") as db:
        db.execute("update runs set status = 'as it was called then'")
    db.close()
    assert await made(tmp_path / "right", log) != right
    monkeypatch.setattr(views, "VERSION", views.VERSION + 1)
    assert await made(tmp_path / "right", log) == right


@pytest.mark.parametrize(
    "damage", ["empty", "not a database", "header", "half", "no tables", "no checkpoint"]
)
async def test_a_file_that_is_broken_at_the_start_is_made_again(
    tmp_path: Path, log, right, damage: str
) -> None:
    path = tmp_path / "right"
    whole = path.read_bytes()
    if damage == "no tables" or damage == "no checkpoint":
        with sqlite3.connect(path) as db:
            for table in tables(path) if damage == "no tables" else ["checkpoint"]:
                db.execute(f"drop table {table}")
        db.close()
    else:
        path.write_bytes({
            "empty": b"",
            "not a database": b"x" * 10_000,
            "header": b"SQLite format 4" + whole[15:],
            "half": whole[: len(whole) // 2],
        }[damage])  # fmt: skip
    assert await made(path, log) == right


@pytest.mark.parametrize("meets", ["read", "write"])
@pytest.mark.parametrize("table", ["steps", "variables", "runs", "runs_by_start_time"])
async def test_damage_that_is_met_later_is_mended(tmp_path: Path, log, right, table: str, meets: str) -> None:
    path = tmp_path / "right"
    with sqlite3.connect(path) as db:
        (root,) = db.execute("select rootpage from sqlite_master where name = ?", (table,)).fetchone()
    db.close()
    whole = bytearray(path.read_bytes())
    whole[(root - 1) * 4096 : (root - 1) * 4096 + 200] = random.Random(1).randbytes(200)
    path.write_bytes(whole)
    async with projecting(path, log) as projections:
        if meets == "write":
            await append_frames(log, "new", guide_frames())
            await projections.caught_up(10)
        else:
            async with asyncio.timeout(20):
                while not await read_everything(projections):
                    await asyncio.sleep(0.001)
    assert await made(path, log) == await made(tmp_path / "afresh", log)


async def test_what_is_unfinished_is_known_although_the_views_are_damaged(tmp_path: Path, log, right) -> None:
    path = tmp_path / "right"
    await append_run(log, "on", [start()])
    await made(path, log)
    with sqlite3.connect(path) as db:
        (root,) = db.execute("select rootpage from sqlite_master where name = 'runs'").fetchone()
        (index,) = db.execute(
            "select rootpage from sqlite_master where name = 'runs_by_status_start_time'"
        ).fetchone()
    db.close()
    whole = bytearray(path.read_bytes())
    for page in (root, index):
        whole[(page - 1) * 4096 : (page - 1) * 4096 + 200] = random.Random(1).randbytes(200)
    path.write_bytes(whole)
    async with projecting(path, log) as projections, asyncio.timeout(20):
        assert list((await projections.unfinished()).owners) == ["on"]


async def read_everything(projections: Projections) -> bool:
    """Return whether every run and list could be read; what was read must be right."""
    try:
        for number in range(RUNS):
            run = await projections.run_detail(run_id_of(number))
            assert (run.status, len(run.context.variables), len(run.context.outputs)) == ("success", 3, 2)
        runs, _ = await projections.runs(RunFilter(), before=None, limit=1_000)
        assert len(runs) == RUNS
    except NotCaughtUp:
        return False
    return True


async def test_a_log_that_was_restored_from_before_the_views(tmp_path: Path, log, right) -> None:
    shorter = MemoryLog()
    for number in range(3):
        await append_frames(shorter, run_id_of(number), guide_frames())
    rows = await made(tmp_path / "right", shorter)
    assert len(rows["runs"]) == 3
    assert rows == await made(tmp_path / "afresh", shorter)


async def test_a_log_that_went_another_way_since(tmp_path: Path, log, right) -> None:
    other = MemoryLog()
    for number in range(RUNS):  # as long as the one that the views were made from, and longer
        await append_frames(other, run_id_of(number + 1_000), guide_frames())
    await append_frames(other, "more", guide_frames())
    assert await made(tmp_path / "right", other) == await made(tmp_path / "afresh", other)


async def test_the_log_went_away_while_nobody_looked(tmp_path: Path, log, right) -> None:
    empty = MemoryLog()
    assert (await made(tmp_path / "right", empty))["runs"] == []


async def test_a_damaged_event_is_left_out_and_the_rest_is_there(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = SqliteLog.open(path)
    for number in range(20):
        await append_frames(log, f"r{number}", guide_frames())
    await log.close()
    with sqlite3.connect(path) as db:
        (position,) = db.execute(
            """select position from events join streams on streams.id = events.stream
            where name = 'run/r7' and seq = 10"""
        ).fetchone()
        db.execute(
            "update events set data = cast(replace(cast(data as text), 'success', 'failing') as blob)"
            " where position = ?",
            (position,),
        )
    db.close()
    log = SqliteLog.open(path)
    try:
        with pytest.raises(Damaged):
            await log.read("run/r7", after=9, limit=1)
        async with projecting(tmp_path / "views", log) as projections:
            assert list((await projections.unfinished()).owners) == ["r7"]
            assert (await projections.run_detail("r19")).status == "success"
            await append_run(log, "new", [start()])
            assert (await projections.run_detail("new")).status == "queued"
        rows = tables(tmp_path / "views")
        assert len(rows["runs"]) == 21
    finally:
        await log.close()


async def test_an_event_that_is_not_understood_is_left_out(tmp_path: Path, log, right) -> None:
    await log.append(
        "run/odd", [NewEvent("run_start", encode_value({"runId": "odd", "payload": 1}))], expected_seq=-1
    )
    await append_frames(log, "later", guide_frames())
    async with projecting(tmp_path / "right", log) as projections:
        assert await projections.run_detail("odd") is None
        assert (await projections.run_detail("later")).status == "success"


async def test_a_log_that_fails_for_a_while_is_waited_for(tmp_path: Path, log, monkeypatch) -> None:
    monkeypatch.setattr("service.projection.projections.RETRY_S", 0.01)
    failures: Counter[asyncio.Task | None] = Counter()
    read_all = log.read_all

    async def failing(**asked):
        failures[asyncio.current_task()] += 1
        if failures[asyncio.current_task()] < 5:
            raise LogUnavailable("the disk is gone")
        return await read_all(**asked)

    monkeypatch.setattr(log, "read_all", failing)
    async with projecting(tmp_path / "views", log) as projections:
        async with asyncio.timeout(10):
            unfinished = await projections.unfinished()  # nothing can begin before: it does not give up
        assert len(failures) == 2, "who keeps them up has met it, and who asks"
        assert run_id_of(1) not in unfinished.owners
        assert (await projections.run_detail(run_id_of(1))).status == "success"


async def test_a_name_that_is_no_text_is_damage(tmp_path: Path, log, right) -> None:
    """Also where SQLite repeats it in a message, which Python then cannot decode."""
    path = tmp_path / "views"
    await made(path, log)
    content = path.read_bytes()
    at = content.index(b"CREATE TABLE", content.index(b"runs"))
    path.write_bytes(content[: at + 2] + b"\xf4" + content[at + 3 :])
    assert await made(path, log) == right


async def test_a_checkpoint_of_another_type_is_damage(tmp_path: Path, log, right) -> None:
    path = tmp_path / "right"
    with sqlite3.connect(path) as db:
        db.execute("update checkpoint set position = 'x'")
    db.close()
    assert await made(path, log) == right


async def test_a_full_disk_is_left_to_others(tmp_path: Path, log, right, monkeypatch) -> None:
    """What the views' WAL took is given back: nothing else may get the log going again."""
    monkeypatch.setattr("service.projection.projections.RETRY_S", 0.01)
    path = tmp_path / "views"
    wal = path.with_name("views-wal")
    applied = views.Views.apply
    sizes: list[int] = []

    def apply(self, page) -> None:
        sizes.append(wal.stat().st_size)
        if len(sizes) == 1:
            full = sqlite3.OperationalError("database or disk is full")
            full.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise full
        applied(self, page)

    monkeypatch.setattr(views.Views, "apply", apply)
    async with projecting(path, log) as projections:
        await projections.caught_up(10)
    assert sizes[0] > sizes[1] == 0
    assert tables(path) == right
