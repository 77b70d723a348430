"""The doctor finds what is really wrong, says how to mend it, and finds nothing where nothing is."""

import http.server
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.access import KeyFile
from service.log.sqlite import SqliteLog
from service.ops import machine
from service.ops.settings import Settings
from tests.cli.test_backup import Cutting
from tests.cli.test_verbs import command, environment
from tests.clients.between import NoUpgrades
from tests.log.contract import new
from tests.server import ROOT, Server

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount")


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Told:
    """What the doctor found: ``of(check)`` gives the findings of one check that are not ok."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.stderr == "", done
        document = json.loads(done.stdout)
        self.findings = document["findings"]
        assert document["ok"] == (done.returncode == 0)
        assert done.returncode == int(any(each["status"] == "fail" for each in self.findings))
        assert all(("remedy" in each) == (each["status"] != "ok") for each in self.findings)

    def of(self, check: str) -> list[tuple[str, str]]:
        found = [each for each in self.findings if each["check"] == check]
        assert found, f"{check} was not looked at"
        return [
            (each["status"], f"{each['said']} — {each['remedy']}") for each in found if each["status"] != "ok"
        ]

    def said(self, check: str) -> str:
        return " | ".join(each["said"] for each in self.findings if each["check"] == check)


def examined(directory: Path, *arguments: object, limit: int | None = None, **env: object) -> Told:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
    given = {name: str(value) for name, value in env.items()}
    done = subprocess.run(
        command("doctor", "--json", *arguments), cwd=directory, env={**bare, "PYTHONPATH": str(ROOT), **given},
        capture_output=True, text=True, timeout=60,
        preexec_fn=None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
    )  # fmt: skip
    return Told(done)


@contextmanager
def mounted(directory: Path, size: str):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


def test_nothing_is_wrong_where_nothing_is(tmp_path, port):
    tmp_path.chmod(0o700)
    told = examined(tmp_path, TAILRACE_PORT=port)
    assert [each for each in told.findings if each["status"] == "fail"] == []
    for check in ("settings", "files", "commands", "service"):
        assert told.of(check) == []
    assert "is not there yet" in told.said("files")
    assert list(tmp_path.iterdir()) == []


def test_it_reads_as_one_line_each_with_the_remedy(tmp_path, port):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TAILRACE_PORT": "high", "TAILRACE_MAX_RUN": "5"}
    done = subprocess.run(
        command("doctor"), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert all(re.match(r"(ok|warn|fail) +[a-z ]+: ", line) for line in lines)
    assert (
        "fail  settings: TAILRACE_PORT: 'high' is refused: give a whole number from 0 to 65535 — set it right"
        in done.stdout
    )
    assert (
        "warn  settings: TAILRACE_MAX_RUN is no setting of this version and has no effect — TAILRACE_MAX_RUNS"
        in done.stdout
    )


def test_every_bad_setting_is_named(tmp_path):
    bad = {"TAILRACE_MAX_RUNS": "0", "TAILRACE_PING_INTERVAL_S": "soon", "TAILRACE_HTTP_ALLOW": "*"}
    told = examined(tmp_path, TAILRACE_HOST="0.0.0.0", **bad)
    names = [said.partition(":")[0] for status, said in told.of("settings") if status == "fail"]
    assert sorted(names) == [
        "TAILRACE_COMMANDS",
        "TAILRACE_HOST",
        "TAILRACE_HTTP_ALLOW",
        "TAILRACE_MAX_RUNS",
        "TAILRACE_PING_INTERVAL_S",
        "TAILRACE_TLS_CERT",
    ]
    subprocess.run(
        command("keys", "create", "ann"), cwd=tmp_path, env=environment(""), check=True, capture_output=True
    )
    told = examined(
        tmp_path,
        TAILRACE_HOST="0.0.0.0",
        TAILRACE_COMMANDS="*",
        TAILRACE_PORT=0,
        TAILRACE_BEHIND_PROXY="127.0.0.1",
    )
    assert [(status, "any program" in said) for status, said in told.of("settings")] == [("warn", True)]


def test_names_that_nobody_told_it_and_keys_that_do_not_fit(tmp_path, port):
    for name in ("a", "b"):
        made = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=x",
        ]
        subprocess.run(
            [*made, "-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.pem"],
            check=True,
            capture_output=True,
        )
    KeyFile(tmp_path / "tailrace.db.keys").create("ann", ("read",), 0)
    told = examined(
        tmp_path,
        TAILRACE_PORT=port,
        TAILRACE_BEHIND_PROXY="127.0.0.1",
        TAILRACE_COMMANDS="",
        TAILRACE_TLS_CERT="a.pem",
        TAILRACE_TLS_KEY="b.key",
    )
    assert [(status, "get 421" in said) for status, said in told.of("names")] == [("warn", True)]
    assert [(status, "belong together" in said) for status, said in told.of("tls")] == [("fail", True)]
    told = examined(
        tmp_path, TAILRACE_PORT=port, TAILRACE_HOSTS="x", TAILRACE_TLS_CERT="a.pem", TAILRACE_TLS_KEY="a.key"
    )
    assert told.of("tls") == []
    told = examined(tmp_path, TAILRACE_PORT=port, TAILRACE_TLS_CERT="a.pem", TAILRACE_TLS_KEY="nowhere.key")
    assert "TAILRACE_TLS_KEY" in [
        said.partition(":")[0] for status, said in told.of("settings") if status == "fail"
    ]


# Files


def test_a_directory_that_is_not_there(tmp_path):
    ((status, said),) = examined(tmp_path, "--db", tmp_path / "nowhere" / "x.db").of("files")
    assert (status, "is not there — mkdir" in said) == ("fail", True)


def test_a_place_that_cannot_be_looked_at(tmp_path):
    found = examined(tmp_path, "--db", tmp_path / ("x" * 300))
    for check in ("files", "log"):
        assert {(status, "File name too long" in said) for status, said in found.of(check)} == {
            ("fail", True)
        }


def test_who_may_read_and_replace_the_files(tmp_path, port):
    with Server(tmp_path):
        pass
    tmp_path.chmod(0o777)
    (tmp_path / "tailrace.db").chmod(0o644)
    (tmp_path / "tailrace.db.views").chmod(0o660)
    found = examined(tmp_path, TAILRACE_PORT=port).of("files")
    assert [status for status, _ in found] == ["fail", "warn", "warn"]
    assert "others may put files in the place" in found[0][1]
    assert found[1][1].endswith(f"(mode 644) — chmod 600 {tmp_path}/tailrace.db")
    assert f"chmod 600 {tmp_path}/tailrace.db.views" in found[2][1]
    for remedy in (f"chmod 700 {tmp_path}", *(said.partition(" — ")[2] for _, said in found)):
        subprocess.run(remedy.split(), check=True)
    assert examined(tmp_path, TAILRACE_PORT=port).of("files") == []


def test_a_log_that_is_somewhere_else(tmp_path, port):
    with Server(tmp_path):
        pass
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tailrace.db").rename(tmp_path / "elsewhere" / "log")
    ((status, said),) = examined(tmp_path, TAILRACE_PORT=port).of("files")
    assert (status, "without it a new, empty one is made" in said) == ("warn", True)
    (tmp_path / "tailrace.db").symlink_to(tmp_path / "elsewhere" / "log")
    found = examined(tmp_path, TAILRACE_PORT=port)
    assert (found.of("files"), f"{tmp_path}/elsewhere/log, " in found.said("files")) == ([], True)


def test_a_file_that_is_no_log(tmp_path, port):
    (tmp_path / "tailrace.db").write_text("my diary " * 900)
    (tmp_path / "tailrace.db").chmod(0o600)
    ((status, said),) = examined(tmp_path, TAILRACE_PORT=port).of("log")
    assert (status, "is not a database" in said) == ("fail", True)


# The machine


def test_too_few_open_files_for_the_watchers(tmp_path, port):
    ((status, said),) = examined(tmp_path, limit=1024, TAILRACE_PORT=port).of("open files")
    assert (status, "LimitNOFILE=10256" in said) == ("warn", True)
    assert (
        examined(tmp_path, limit=1024, TAILRACE_PORT=port, TAILRACE_MAX_WATCHERS=700).of("open files") == []
    )


@needs_root
def test_a_small_disk_in_memory(tmp_path, port):
    with mounted(tmp_path, "1m"):
        found = examined(tmp_path, TAILRACE_PORT=port).of("disk")
        assert [status for status, said in found if "execute answers 503" in said] == ["fail"]
        assert [status for status, said in found if "is on tmpfs: gone with the next boot" in said] == [
            "warn"
        ]
    with mounted(tmp_path, "100m"):
        found = examined(tmp_path, TAILRACE_PORT=port).of("disk")
        assert [status for status, said in found if "no run is accepted" in said] == ["warn"]


@needs_root
def test_a_disk_that_cannot_be_written(tmp_path, port):
    with mounted(tmp_path, "100m"):
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        told = examined(tmp_path, TAILRACE_PORT=port)
        assert [status for status, said in told.of("disk") if "mounted read-only" in said] == ["fail"]
        assert [status for status, said in told.of("files") if "cannot be written" in said] == ["fail"]


@pytest.mark.parametrize(
    ("type_", "status"),
    [
        ("nfs4", "fail"),
        ("cifs", "fail"),
        ("fuse.sshfs", "fail"),
        ("overlay", "warn"),
        ("tmpfs", "warn"),
        ("xfs", "ok"),
    ],
)
def test_file_systems_by_the_mount_that_is_nearest(tmp_path, monkeypatch, type_, status):
    lines = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"40 22 0:30 / {str(tmp_path).replace(' ', chr(92) + '040')} rw,relatime shared:1 - {type_} host:/x rw\n"
        f"41 22 0:31 / {tmp_path}2 rw - proc proc rw\n"
    )
    assert machine.file_system_of(tmp_path / "deep", lines) == type_
    assert machine.file_system_of(Path("/srv"), lines) == "ext4"
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path: lines if path.name == "mountinfo" else read(path))
    assert machine._file_system(tmp_path).status == status


def test_few_connections_may_wait(tmp_path):
    (tmp_path / "somaxconn").write_text("128\n")
    assert machine.connections(tmp_path / "somaxconn").status == "warn"
    assert machine.connections(tmp_path / "nowhere").status == "ok"


async def test_a_clock_that_was_set_back(tmp_path, port):
    log = SqliteLog.open(tmp_path / "tailrace.db")
    ahead = (datetime.now(UTC) + timedelta(days=10)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    await log.append("run/a", new(json.dumps({"timestamp": ahead})), expected_seq=-1)
    await log.close()
    found = examined(tmp_path, TAILRACE_PORT=port).of("clock")
    assert [status for status, said in found if "ahead of this clock" in said] == ["warn"]
    assert [each.status for each in machine.clock(None, datetime(1970, 1, 2, tzinfo=UTC))][0] == "fail"


def test_a_flush_that_is_slow_and_one_that_is_none(tmp_path, monkeypatch):
    settings = Settings(db=tmp_path / "x.db")
    for took_s, said in ((0.5, "at most 2 commits a second"), (0.000001, "too fast to be true")):
        monkeypatch.setattr(machine, "_flush_s", lambda _, took_s=took_s: [took_s] * machine.FLUSHES)
        assert any(said in each.said and each.status == "warn" for each in machine.disk(settings))


# The service, and what is in front of it


def test_a_port_that_somebody_else_has(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ((status, said),) = examined(tmp_path, TAILRACE_PORT=taken.getsockname()[1]).of("service")
    assert (status, "in use" in said) == ("fail", True)


def test_a_service_that_runs_is_asked_and_its_own_settings_count(tmp_path):
    with Server(tmp_path, TAILRACE_MAX_WATCHERS=777, TAILRACE_SECRET_X="hush") as server:
        told = examined(tmp_path, TAILRACE_MAX_WATCHERS=999_999)
        assert [each for each in told.findings if each["status"] == "fail"] == []
        assert f"those of process {server.process.pid}" in told.said("settings")
        assert "1 secrets" in told.said("settings")
        assert "hush" not in json.dumps(told.findings)
        assert "1,033 needed" in told.said("open files")
        assert "accepts runs" in told.said("service")
        assert f"answers at {server.url}" in told.said("service")


def test_a_service_that_hangs_or_accepts_nothing(tmp_path):
    with Server(tmp_path) as server:
        server.process.send_signal(signal.SIGSTOP)
        try:
            ((status, said),) = examined(tmp_path).of("service")
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert (status, "does not answer" in said) == ("fail", True)
    with Server(tmp_path) as server:
        free = os.statvfs(tmp_path)
        server.stop()
        server._env["TAILRACE_MIN_FREE_BYTES"] = str(free.f_bavail * free.f_frsize * 2)
        server.wait_until_ready = lambda: None
        server.start()
        told = examined(tmp_path)
        assert [status for status, said in told.of("service") if "bytes are free" in said] == ["fail"]
        assert [status for status, said in told.of("disk") if "execute answers 503" in said] == ["fail"]


def test_what_is_in_front_of_it(tmp_path):
    with Server(tmp_path) as server:
        assert examined(tmp_path, "--url", server.url).of("proxy") == []
        server.stop()
        with Cutting(server.port, None) as between:
            server.start()
            ((status, said),) = examined(tmp_path, "--url", between.url).of("proxy")
            assert (status, f"TAILRACE_HOSTS=127.0.0.1:{between.port}" in said) == ("fail", True)
            server.stop()
            server._env["TAILRACE_HOSTS"] = "127.0.0.1"
            server.start()
            with NoUpgrades(server.port) as proxy:
                ((status, said),) = examined(tmp_path, "--url", proxy.url).of("proxy")
                assert (status, "a WebSocket does not get through (403)" in said) == ("fail", True)
        ((status, said),) = examined(tmp_path, "--url", "http://127.0.0.1:9").of("proxy")
        assert (status, "does not answer" in said) == ("fail", True)
        ((status, said),) = examined(tmp_path, "--url", "nonsense").of("proxy")
        assert (status, "is not an address" in said) == ("fail", True)
        with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as other:
            threading.Thread(target=other.handle_request, daemon=True).start()
            ((status, said),) = examined(tmp_path, "--url", f"http://127.0.0.1:{other.server_port}").of(
                "proxy"
            )
            assert (status, "what answers is not Tailrace (501)" in said) == ("fail", True)


def test_a_damaged_end_of_the_log_is_seen(tmp_path, port):
    with Server(tmp_path) as server:
        server.create("a", {"steps": {"a": {"type": "wait", "config": {"duration": 1}}}})
        server.finished(server.execute("a"))
    with sqlite3.connect(server.db) as db:
        db.execute(
            "UPDATE events SET data = CAST('{}' AS BLOB) WHERE position = (SELECT max(position) FROM events)"
        )
    db.close()
    ((status, said),) = examined(tmp_path, TAILRACE_PORT=port).of("log")
    assert (status, "does not fit its checksum" in said) == ("fail", True)
