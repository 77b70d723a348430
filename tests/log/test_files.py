"""The log's names: one that comes to lead to another file is noticed, and what lies there is left alone."""

import shutil
import time
from pathlib import Path

import pytest

from service.errors import LogError, LogUnavailable
from service.log.copy import Copy
from service.log.files import RECORDED_MAX, SIGNATURE_AT, check_wal, record
from service.log.lock import LogInUse, at_rest, hold
from service.log.sqlite import SqliteLog
from service.log.verify import pages, verify
from tests.log.contract import new, read_stream, texts
from tests.server import Server

NAP = {"steps": {"nap": {"type": "wait", "config": {"duration": "1ms"}}}}


@pytest.fixture(autouse=True)
def at_each_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.log.commit.LOOK_INTERVAL_S", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "tailrace.db"


def killed(path: Path) -> Path:
    """Return the log as it is at this moment, with all that is beside it, elsewhere: as after a kill."""
    return shutil.copytree(path.parent, path.parent.with_name("killed")) / path.name


def backup(path: Path) -> Path:
    """Put another log there."""
    copy = Copy(path.with_name("partial"))
    copy.finish()
    return path.with_name("partial").rename(path)


async def refused(log: SqliteLog, seq: int) -> str:
    with pytest.raises(LogUnavailable) as error:
        await log.append("run/a", new("late"), expected_seq=seq)
    assert error.value.stored is False
    assert log.unavailable == error.value.reason
    return error.value.reason


async def test_a_file_that_takes_its_place_is_noticed_and_left_alone(path: Path, tmp_path: Path) -> None:
    log = SqliteLog.open(path)
    await log.append("run/a", new("0", "1"), expected_seq=-1)
    other = backup(tmp_path / "backup.db")
    content = other.read_bytes()
    path.rename(tmp_path / "old.db")
    other.rename(path)
    assert (
        await refused(log, 1)
        == f"{path.name} is another file now: stop the service, and put the log's own files back"
    )
    assert await refused(log, 1), "for good"
    assert texts(await read_stream(log, "run/a")) == ["0", "1"], "and goes on to be read"
    await log.close()
    assert path.read_bytes() == content
    verdict = verify(tmp_path / "old.db")
    assert (verdict.events, verdict.faults) == (2, []), "the old one has all of it"
    log = SqliteLog.open(path)
    assert log.events == 0
    await log.append("run/a", new("anew"), expected_seq=-1)
    await log.close()
    assert verify(path).faults == []


@pytest.mark.parametrize("suffix", ["", "-wal", ".lock"])
async def test_a_name_that_is_gone_is_noticed_and_nothing_is_lost(path: Path, suffix: str) -> None:
    log = SqliteLog.open(path)
    await log.append("run/a", new("0", "1"), expected_seq=-1)
    gone = Path(f"{path}{suffix}")
    kept = gone.rename(path.with_name("kept"))
    assert (await refused(log, 1)).startswith(f"{gone.name} is not there any more")
    await log.close()
    if not suffix:
        kept.rename(path)
    log = SqliteLog.open(path)
    assert texts(await read_stream(log, "run/a")) == ["0", "1"]
    await log.close()


async def test_a_wal_that_takes_its_place_is_left_alone(path: Path) -> None:
    log = SqliteLog.open(path)
    await log.append("run/a", new("0", "1"), expected_seq=-1)
    wal = Path(f"{path}-wal")
    wal.unlink()
    wal.write_bytes(b"theirs")
    assert "tailrace.db-wal is another file now" in await refused(log, 1)
    await log.close()
    assert wal.read_bytes() == b"theirs"
    assert verify(shutil.copy(path, path.with_name("alone.db"))).events == 2


async def test_it_is_noticed_before_a_failed_store_is_opened_again(path: Path, tmp_path: Path) -> None:
    log = SqliteLog.open(path)
    await log.append("run/a", new("0"), expected_seq=-1)
    log._writer._commits._drop(LogUnavailable("the disk fails"))
    path.rename(tmp_path / "old.db")
    before = backup(path).read_bytes()
    assert "is another file now" in await refused(log, 0)
    await log.close()
    assert path.read_bytes() == before


async def test_no_page_is_read_from_a_file_that_took_its_place(path: Path, tmp_path: Path) -> None:
    await (await written(path)).close()
    log = SqliteLog.open(path)
    path.rename(tmp_path / "old.db")
    backup(path)
    with pytest.raises(LogUnavailable, match="is another file now"):
        await log.read("run/a", after=-1, limit=10)
    await log.close()


async def written(path: Path) -> SqliteLog:
    log = SqliteLog.open(path)
    await log.append("run/a", new("0", "1"), expected_seq=-1)
    return log


async def left_behind(path: Path) -> Path:
    """Return what a kill leaves of a log with two events."""
    log = await written(path)
    left = killed(path)
    await log.close()
    return left


async def test_the_wal_of_another_log_is_never_played_into_one(path: Path, tmp_path: Path) -> None:
    left = await left_behind(path)
    left.unlink()
    backup(left)
    content = left.read_bytes()
    said = f"^{left}-wal belongs to another log than the one that is there now: put that back, or move"
    for look in (SqliteLog.open, verify, lambda path: next(pages(path))):
        with pytest.raises(LogError, match=said):
            look(left)
    assert left.read_bytes() == content
    left.unlink()
    with pytest.raises(LogUnavailable, match=f"{left}-wal is there, but not its log"):
        SqliteLog.open(left)
    assert not left.exists()
    Path(f"{left}-wal").unlink()
    await SqliteLog.open(left).close()


async def test_an_earlier_copy_of_the_same_log_is_another_log(path: Path, tmp_path: Path) -> None:
    await (await written(path)).close()
    earlier = shutil.copy(path, tmp_path / "earlier.db")
    log = SqliteLog.open(path)
    await log.append("run/a", new("2"), expected_seq=1)
    left = killed(path)
    await log.close()
    shutil.copy(earlier, left)
    with pytest.raises(LogUnavailable, match="belongs to another log"):
        SqliteLog.open(left)


async def test_what_a_kill_leaves_is_taken_up_elsewhere_with_all_its_events(path: Path) -> None:
    with hold(path):
        left = await left_behind(path)
    with at_rest(left):
        assert verify(left).events == 2
    without_record = shutil.copytree(left.parent, left.parent.with_name("without")) / left.name
    Path(f"{without_record}.lock").unlink()
    for each in (left, without_record):
        again = SqliteLog.open(each)
        assert texts(await read_stream(again, "run/a")) == ["0", "1"]
        await again.close()


async def test_a_kill_in_the_midst_of_a_start_is_no_other_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = await left_behind(path)
    for fails_at in ("service.log.store.Store.settle", "service.log.store.Store._load"):
        with monkeypatch.context() as broken:
            broken.setattr(fails_at, lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                SqliteLog.open(left)
    again = SqliteLog.open(left)
    assert texts(await read_stream(again, "run/a")) == ["0", "1"]
    await again.close()


@pytest.mark.parametrize("cut", [1, 7, 30])
async def test_a_record_that_was_not_written_to_its_end_says_nothing(path: Path, cut: int) -> None:
    left = await left_behind(path)
    lock = Path(f"{left}.lock")
    lock.write_bytes(lock.read_bytes()[:-cut])
    assert check_wal(left)
    again = SqliteLog.open(left)
    assert texts(await read_stream(again, "run/a")) == ["0", "1"]
    await again.close()


async def test_a_signature_that_was_half_written_is_that_of_the_log(path: Path) -> None:
    left = await left_behind(path)
    (signature,) = set(check_wal(left))
    record(left, signature, 0x01020304)
    with left.open("r+b") as file:
        file.seek(SIGNATURE_AT)
        file.write(signature.to_bytes(4, "big")[:2] + b"\x03\x04")
    assert len(set(check_wal(left))) == 3
    with left.open("r+b") as file:
        file.seek(SIGNATURE_AT)
        file.write(b"\xff\xff\x03\x04")
    with pytest.raises(LogUnavailable, match="belongs to another log"):
        check_wal(left)


async def test_after_starts_that_failed_it_may_be_signed_by_any_of_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = await left_behind(path)
    (first,) = set(check_wal(left))
    with monkeypatch.context() as broken:
        broken.setattr("service.log.store.Store.settle", lambda _: 1 / 0)
        for _ in range(RECORDED_MAX + 2):
            with pytest.raises(ZeroDivisionError):
                SqliteLog.open(left)
    assert first in check_wal(left), "the file shows no other yet"
    again = SqliteLog.open(left)
    await again.append("run/a", new("2"), expected_seq=1)
    assert len(set(check_wal(left))) == 1
    await again.close()


def test_a_link_leads_to_the_lock_of_its_log(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(path)
    for held, other in ((path, tmp_path / "link.db"), (tmp_path / "link.db", path)):
        with hold(held), pytest.raises(LogInUse), hold(other):
            pass
    with hold(path), pytest.raises(LogInUse), at_rest(tmp_path / "link.db"):
        pass


async def test_a_log_with_two_names_is_refused(path: Path, tmp_path: Path) -> None:
    await SqliteLog.open(path).close()
    (tmp_path / "second.db").hardlink_to(path)
    with pytest.raises(LogUnavailable, match=f"^{path} has another name, by a hard link"):
        SqliteLog.open(path)
    (tmp_path / "second.db").unlink()
    await SqliteLog.open(path).close()


# A service


def test_an_idle_service_says_that_its_log_was_moved_away(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        server.create("nap", NAP)
        run_id = server.execute("nap")
        server.finished(run_id)
        moved = server.db.rename(tmp_path / "moved.db")
        deadline = time.monotonic() + 30
        while (answer := server.get("/ready")).status == 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)  # between two looks: nothing tells
        (reason,) = answer.json["reasons"]
        assert reason["code"] == "log_unavailable"
        assert "tailrace.db is not there any more" in reason["text"]
        assert server.post("/api/v2/workflows/nap/execute").status == 503
        assert server.run(run_id)["status"] == "success", "it can still be read"
        assert server.stop() == 0
        assert not server.db.exists()
        moved.rename(server.db)
        server.start()
        assert server.run(run_id)["status"] == "success"


def test_no_second_service_comes_to_a_log_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.db").symlink_to(tmp_path / "tailrace.db")
    with Server(tmp_path) as server:
        link = str(tmp_path / "elsewhere" / "link.db")
        second = server.tailrace("serve", "--db", link, "--port", "0", status=1)
        assert f"tailrace.db is in use by process {server.process.pid}" in second.stderr
        assert "in use" in server.tailrace("verify", link, status=2).stderr
        server.tailrace("keys", "create", "ann", "--db", link)
        assert server.db.with_name("tailrace.db.keys").exists(), (
            "what is beside a log is beside its real name"
        )
    linked = Server(tmp_path / "elsewhere")
    linked.db = Path(link)
    with linked:
        assert linked.get("/ready").status == 200
    assert {each.name for each in (tmp_path / "elsewhere").iterdir()} == {"link.db", "diagnostics.txt"}
