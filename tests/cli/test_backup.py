"""A backup is whole or not there, whatever happens on the way, and a log can be looked at with its service stopped."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest

from tests.cli.test_verbs import command, environment, tailrace
from tests.clients.between import Between
from tests.server import Server

LINES = {
    "steps": {"say": {"type": "command", "config": {"command": "seq", "args": ["{{n}}"]}}},
    "variables": {"n": 9},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("backup"), TAILRACE_HOSTS="127.0.0.1") as server:
        server.create("lines", LINES)
        for run_id in [server.execute("lines", n=1500) for _ in range(3)]:
            server.finished(run_id)
        yield server


def events_of(path: Path) -> list[tuple]:
    """Return every event of a log's file with its place, as SQLite has them."""
    query = (
        "SELECT position, name, seq, (SELECT name FROM types WHERE id = type), crc, data, events.chain"
        " FROM events JOIN streams ON stream = id ORDER BY position"
    )
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        events = db.execute(query).fetchall()
    db.close()
    return events


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_backup_holds_every_event_at_its_place_and_is_only_its_owner_s(server, tmp_path):
    result = tailrace(server.url, "backup", tmp_path / "b.db", "-o", "json")
    assert (result.code, result.err) == (0, ""), result
    events = events_of(server.db)
    told = json.loads(result.out)
    assert (told["events"], told["position"]) == (len(events), len(events))
    assert told["bytes"] == (tmp_path / "b.db").stat().st_size
    assert told["newest"] == json.loads(events[-1][5])["timestamp"]
    assert events_of(tmp_path / "b.db") == events
    assert names(tmp_path) == ["b.db"]
    assert (tmp_path / "b.db").stat().st_mode & 0o777 == 0o600
    assert tailrace("", "verify", tmp_path / "b.db").out.endswith("; whole\n")


def test_it_says_in_words_what_it_holds(server, tmp_path):
    result = tailrace(server.url, "backup", tmp_path / "b.db")
    assert result.code == 0, result
    for part in ("events in", "streams, up to position", "the last of 20", "MiB/s", "verified"):
        assert part in result.out


def test_a_file_that_exists_is_replaced_by_force_only(server, tmp_path):
    (tmp_path / "b.db").write_text("an older one")
    result = tailrace(server.url, "backup", tmp_path / "b.db")
    assert result.code == 1, result
    assert result.err == f"tailrace: {tmp_path}/b.db exists; --force replaces it\n"
    assert (tmp_path / "b.db").read_text() == "an older one"
    assert tailrace(server.url, "backup", tmp_path / "b.db", "--force").code == 0
    assert tailrace("", "verify", tmp_path / "b.db").code == 0
    assert names(tmp_path) == ["b.db"]


def test_a_log_that_is_served_or_was_is_never_replaced(server, tmp_path):
    before = server.db.read_bytes()
    result = tailrace(server.url, "backup", server.db, "--force")
    assert (result.code, f"in use by process {server.process.pid}" in result.err) == (1, True), result
    (tmp_path / "b.db-wal").write_text("of a log that was killed")
    result = tailrace(server.url, "backup", tmp_path / "b.db", "--force")
    assert (result.code, "b.db-wal belongs to a log" in result.err) == (1, True), result
    assert (server.db.read_bytes(), names(tmp_path)) == (before, ["b.db-wal"])


class Cutting(Between):
    """Passes on what the service answers, and cuts each connection after so many bytes (None: never)."""

    def __init__(self, port: int, *cuts: int | None) -> None:
        super().__init__()
        self._service = port
        self._cuts = cuts
        self.held = threading.Event()  # set once a connection hangs
        self.go_on = threading.Event()

    def _connection(self, peer: socket.socket, head: bytes) -> None:
        cut = self._cuts[min(len(self.heads), len(self._cuts)) - 1]
        with socket.create_connection(("127.0.0.1", self._service), 30) as service:
            service.sendall(head)
            passed = 0
            while data := service.recv(65536):
                if cut is not None and passed + len(data) > abs(cut):
                    peer.sendall(data[: abs(cut) - passed])
                    if cut < 0:
                        self.held.set()
                        self.go_on.wait(30)
                    return
                peer.sendall(data)
                passed += len(data)


def test_a_lost_connection_is_taken_up_where_it_ended(server, tmp_path):
    """Cut before anything has come it is given up at once, later it goes on: to the end as it was at first."""
    with Cutting(server.port, 2_000, 300, 290_000, 70_000, None) as between:
        result = tailrace(between.url, "backup", tmp_path / "b.db", "-o", "json")
    assert result.code == 0, result
    assert result.err.count("again in") == 4
    told = json.loads(result.out)
    assert events_of(tmp_path / "b.db") == events_of(server.db)[: told["events"]]
    asked = [head.split(" ", 2)[1].partition("?")[2] for head in between.heads]
    assert asked[0] == ""
    assert all(f"upto={told['position']}" in query for query in asked[1:])
    assert len(set(asked[1:])) > 1, "each goes on where the one before it came to"


def test_a_service_that_goes_away_at_once_leaves_nothing(server, tmp_path):
    with Cutting(server.port, 50) as between:
        result = tailrace(between.url, "backup", tmp_path / "b.db")
    assert (result.code, names(tmp_path)) == (4, []), result


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])  # fmt: skip
def test_an_ended_backup_leaves_nothing_or_the_next_one_removes_it(server, tmp_path, number, code):
    with (
        Cutting(server.port, -300_000, None) as between,
        subprocess.Popen(
            command("backup", tmp_path / "b.db"),
            env=environment(between.url),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as backing_up,
    ):
        try:
            assert between.held.wait(30)
            again = tailrace(between.url, "backup", tmp_path / "b.db")
            assert (again.code, "another process writes" in again.err) == (1, True), again
        finally:
            backing_up.send_signal(number)
        assert backing_up.wait(30) == code
        between.go_on.set()
        assert names(tmp_path) == (["b.db.partial"] if number == signal.SIGKILL else [])
        assert tailrace(between.url, "backup", tmp_path / "b.db").code == 0
    assert names(tmp_path) == ["b.db"]


def test_where_it_cannot_be_written_nothing_is_left(server, tmp_path):
    result = tailrace(server.url, "backup", tmp_path / "nowhere" / "b.db")
    assert (result.code, "No such file" in result.err, result.err.count("\n")) == (1, True, 1), result


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount")
def test_a_full_disk_is_said_and_nothing_is_left(server, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", small], check=True)
    try:
        result = tailrace(server.url, "backup", small / "b.db")
        assert (result.code, "full" in result.err) == (1, True), result
        assert names(small) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_no_service_exits_4(tmp_path):
    result = tailrace("http://127.0.0.1:9", "backup", tmp_path / "b.db")
    assert (result.code, "does not answer" in result.err, names(tmp_path)) == (4, True, []), result


# The route


def test_the_route_refuses_what_it_cannot_do(server):
    head = server.get("/api/v2/events?cursor=999999999").json["lastCursor"]
    for path, status in (
        (f"?cursor={head + 1}", 409),
        (f"?upto={head + 1}", 409),
        ("?cursor=5&upto=4", 409),
        ("?cursor=x", 400),
        ("?since=1", 400),
    ):
        assert server.post(f"/api/v2/backups{path}").status == status, path
    assert server.post("/api/v2/backups", {"a": 1}).status == 400
    assert server.get("/api/v2/backups").status == 405
    lines = server.post(f"/api/v2/backups?cursor=3&upto={head}").body.splitlines()
    assert json.loads(lines[0])["lastCursor"] == head
    assert [json.loads(line)["position"] for line in lines[1:-1]] == list(range(4, head + 1))
    assert json.loads(lines[-1]) == {"end": head}


def test_only_so_many_at_once_and_those_who_leave_make_room(tmp_path):
    with Server(tmp_path) as server:
        server.create("lines", LINES)
        server.finished(server.execute("lines", n=60_000))
        request = (
            f"POST /api/v2/backups HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 0\r\n\r\n"
        )
        connections = []
        for _ in range(2):  # they take nothing, so that they do not end
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(request.encode())
            assert connection.recv(12) == b"HTTP/1.1 200"
            connections.append(connection)
        third = server.post("/api/v2/backups")
        assert (third.status, third.headers["retry-after"]) == (429, "10")
        for connection in connections:
            connection.close()
        result = tailrace(server.url, "backup", tmp_path / "b.db")
        assert result.code == 0, result


def test_of_many_at_the_same_moment_no_more_than_so_many_begin(tmp_path):
    with Server(tmp_path) as server:
        server.create("lines", LINES)
        server.finished(server.execute("lines", n=60_000))
        connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(12)]
        for connection in connections:
            connection.sendall(
                b"POST /api/v2/backups HTTP/1.1\r\nHost: 127.0.0.1:%d\r\ncontent-length: 0\r\n\r\n"
                % server.port
            )
        begun = 0
        for connection in connections:
            said = b""
            while b"format" not in said and b"under way already" not in said:
                said += connection.recv(4096)
            begun += b"format" in said
        for connection in connections:
            connection.close()
    assert 1 <= begun <= 2


def test_it_takes_a_key_of_an_admin(tmp_path):
    with Server(tmp_path) as server:
        backup = command("backup", tmp_path / "b.db")
        for rights, code in (("read,run,write,metrics", 2), ("admin", 0)):
            env = environment(server.url) | {"TAILRACE_KEY": server.create_key("ann", rights)}
            done = subprocess.run(backup, env=env, capture_output=True, text=True, timeout=60)
            assert done.returncode == code, done
        assert '"by": "ann"' in server.diagnostics.read_text()
        (tmp_path / "b.db").unlink()
        without = tailrace(server.url, "backup", tmp_path / "b.db")
        assert (without.code, names(tmp_path).count("b.db")) == (2, 0), without


def test_a_damaged_event_ends_it_with_its_seq(tmp_path):
    with Server(tmp_path) as server:
        server.create("lines", LINES)
        run_id = server.execute("lines", n=1500)
        server.finished(run_id)
    with sqlite3.connect(server.db) as db:
        changed = "UPDATE events SET data = CAST('{}' AS BLOB) WHERE seq = 700 AND stream = (SELECT id FROM streams WHERE name = ?)"
        assert db.execute(changed, (f"run/{run_id}",)).rowcount == 1
    db.close()
    with Server(tmp_path) as server:
        result = tailrace(server.url, "backup", tmp_path / "b.db")
        assert result.code == 1, result
        assert result.err == f"tailrace: run/{run_id}: the stored event 700 does not fit its checksum\n"
    assert [name for name in names(tmp_path) if name.startswith("b.db")] == []
    verdict = tailrace("", "verify", server.db)
    assert (verdict.code, f"run/{run_id}: event 700 is damaged" in verdict.out) == (1, True), verdict
    told = json.loads(tailrace("", "verify", server.db, "-o", "json").out)
    assert (told["whole"], told["faultsCount"]) == (False, 1)


# Without a service


def test_a_log_in_use_is_not_opened(server, tmp_path):
    for arguments in (["backup", tmp_path / "b.db", "--db", server.db], ["verify", server.db]):
        result = (
            tailrace("", *arguments)
            if arguments[0] == "verify"
            else tailrace("http://127.0.0.1:9", *arguments)
        )
        assert result.code in {1, 2}
        assert f"is in use by process {server.process.pid}" in result.err, result
    assert names(tmp_path) == []


def test_a_stopped_service_s_log_is_copied_as_it_is_after_a_crash(tmp_path):
    with Server(tmp_path) as server:
        server.create("lines", LINES)
        server.finished(server.execute("lines", n=100))
        server.kill_hard()
        before = {name: (tmp_path / name).read_bytes() for name in ("tailrace.db", "tailrace.db-wal")}
        assert before["tailrace.db-wal"]
        result = tailrace("http://127.0.0.1:9", "backup", tmp_path / "b.db", "--db", server.db, "-o", "json")
        assert result.code == 0, result
        assert before == {name: (tmp_path / name).read_bytes() for name in before}
        assert tailrace("", "verify", server.db).code == 0
        events = json.loads(result.out)["events"]
        server.start()
        assert events_of(tmp_path / "b.db") == events_of(server.db)[:events]


@pytest.mark.parametrize("index", ["typed", "places"])
def test_a_backup_of_a_log_whose_index_is_damaged_is_whole(server, tmp_path, index):
    backup, copy = tmp_path / "b.db", tmp_path / "c.db"
    assert tailrace(server.url, "backup", backup).code == 0
    events = events_of(backup)
    with sqlite3.connect(backup) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (index,)).fetchone()
    db.close()
    with backup.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(bytes(4096))
    verdict = tailrace("", "verify", backup)
    assert (verdict.code, "run/" in verdict.out) == (1, False), "no event is named"
    assert tailrace("http://127.0.0.1:9", "backup", copy, "--db", backup).code == 0
    assert tailrace("", "verify", copy).code == 0
    assert events_of(copy) == events


def test_verify_takes_the_log_of_the_settings_and_refuses_what_is_none(tmp_path):
    with Server(tmp_path) as server:
        server.create("lines", LINES)
    env = environment("") | {"TAILRACE_DB": str(server.db)}
    done = subprocess.run(
        command("verify"), env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.endswith("; whole\n")) == (0, True), done
    (tmp_path / "diary.db").write_text("my diary " * 900)
    for name in ("diary.db", "nowhere.db"):
        result = tailrace("", "verify", tmp_path / name)
        assert (result.code, result.out) == (2, ""), result
    shutil.copy(server.db, tmp_path / "short.db")
    os.truncate(tmp_path / "short.db", 8192)
    assert tailrace("", "verify", tmp_path / "short.db").code == 1
