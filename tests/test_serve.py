"""The service as a process: how it starts, refuses to, and ends."""

import asyncio
import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from fnmatch import fnmatch

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from service.app import build
from service.log.memory import MemoryLog
from service.ops.settings import Settings
from service.projection import Projections
from service.server import CannotListen, listening
from tests.server import ROOT, Answer, Server

W = "/api/v2/workflows"
ECHO = {"steps": {"say": {"type": "command", "config": {"command": "echo", "args": ["hello"]}}}}
NAP = {"steps": {"nap": {"type": "command", "config": {"command": "sleep", "args": ["{{s}}"]}}}}


def failed_start(*flags: str, cwd) -> tuple[int, str]:
    """Run ``tailrace serve`` where it cannot start; return its exit code and what it said."""
    ended = subprocess.run(
        [sys.executable, "-m", "service", "serve", *flags],
        cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


def lines(server: Server) -> list[dict]:
    return [json.loads(line) for line in server.diagnostics.read_text().splitlines()]


# Start


def test_a_run_from_create_to_its_end(tmp_path):
    with Server(tmp_path) as server:
        server.create("greet", ECHO)
        run = server.finished(server.execute("greet"))
        assert run["status"] == "success"
        assert run["context"]["outputs"]["say"]["stdout"].strip() == "hello"
        assert server.stop() == 0
        assert [line for line in lines(server) if line["level"] != "info"] == []
        (listening,) = (line for line in lines(server) if line["message"] == "listening")
        assert listening["sqlite"] == sqlite3.sqlite_version


def test_while_the_log_is_being_opened_whoever_asks_is_told(tmp_path):
    with Server(tmp_path) as server, ThreadPoolExecutor(1) as beside:
        server.create("greet", ECHO)
        run_id = server.execute("greet")
        server.finished(run_id)
        server.stop()
        foreign = sqlite3.connect(
            server.db, isolation_level=None
        )  # opening waits for it, as for any long work
        foreign.execute("BEGIN IMMEDIATE")
        starting = beside.submit(server.start)
        deadline = time.monotonic() + 20
        while (answer := answered(server, "/ready")) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)  # between two tries to connect: nothing tells when a process begins to listen
        assert answer.status == 503
        assert [reason["code"] for reason in answer.json["reasons"]] == ["migrating"]
        assert answer.headers["retry-after"] == "1"
        assert server.get("/health").json["status"] == "ok"
        assert server.get(f"{W}/runs/{run_id}").status == 503
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{server.ws_url}{W}/runs/{run_id}/stream")
        assert refused.value.response.status_code == 503
        assert not starting.done()
        foreign.close()
        starting.result()
        assert server.get(f"{W}/runs/{run_id}").json["status"] == "success"
        assert "the log is being opened" in [line["message"] for line in lines(server)]


def answered(server: Server, path: str) -> Answer | None:
    """Return the answer, None while nobody listens or answers."""
    try:
        return server.get(path)
    except OSError:
        return None


def test_all_its_files_are_its_owners_alone_and_git_is_told_to_leave_them_out(tmp_path):
    left_out = (ROOT / ".gitignore").read_text().split()
    with Server(tmp_path) as server:
        server.key = server.create_key("root", "admin")
        server.create("greet", ECHO)
        server.finished(server.execute("greet"))
        files = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("tailrace.db*")}
        assert {"tailrace.db", "tailrace.db-wal", "tailrace.db.views", "tailrace.db.segments"} <= set(files)
        assert [name for name, mode in files.items() if mode != 0o600] == []
        assert [name for name in files if not any(fnmatch(name, each) for each in left_out)] == []


def test_it_opens_as_many_files_as_it_may_and_its_commands_as_many_as_usual(tmp_path):
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    usual = min(777, most - 1)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (usual, most))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (before, most))
        server = stack.enter_context(Server(tmp_path))
        assert server.process is not None
        assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE) == (most, most)
        told = {"type": "command", "config": {"command": "sh", "args": ["-c", "ulimit -Sn; ulimit -Hn"]}}
        server.create("limits", {"steps": {"told": told}})
        run = server.finished(server.execute("limits"))
        assert run["context"]["outputs"]["told"]["stdout"].split() == [str(usual), str(most)]


def test_it_listens_on_both_loopback_families(tmp_path):
    with Server(tmp_path) as server, socket.create_connection(("::1", server.port)) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: [::1]:%d\r\n\r\n" % server.port)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_a_port_in_use_is_one_clear_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = failed_start("--port", str(port), cwd=tmp_path)
    assert code == 1
    where = f"127.0.0.1 and ::1, port {port}"
    hint = "another --port can be given, 0 takes a free one"
    assert said == f"tailrace: cannot listen on {where}: it is in use; {hint}\n"
    assert not (tmp_path / "tailrace.db").exists()


def test_a_port_that_only_the_other_family_uses_is_in_use():
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as taken,
        pytest.raises(CannotListen, match="in use"),
        listening("", taken.getsockname()[1]),
    ):
        pass


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(CannotListen, match="192.0.2.1, port 0"), listening("192.0.2.1", 0):
        pass


def test_a_database_in_use_names_the_process(tmp_path):
    with Server(tmp_path) as server:
        code, said = failed_start("--port", "0", cwd=tmp_path)
        assert (code, f"process {server.process.pid}" in said, said.count("\n")) == (1, True, 1)
        assert server.get("/ready").status == 200


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path):
    (tmp_path / "tailrace.db").write_text("my diary, " * 1000)
    code, said = failed_start("--port", "0", cwd=tmp_path)
    assert (code, said.splitlines()[-1].startswith("tailrace: ")) == (1, True), said
    assert (tmp_path / "tailrace.db").read_text() == "my diary, " * 1000


def test_bad_settings_are_named_and_nothing_is_opened(tmp_path):
    code, said = failed_start("--port", "99999", "--max-runs", "none", cwd=tmp_path)
    assert code == 2
    assert "TAILRACE_PORT" in said
    assert "TAILRACE_MAX_RUNS" in said
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_setting_is_mentioned(tmp_path):
    with Server(tmp_path, TAILRACE_MAX_RUN=3) as server:
        [line] = [line for line in lines(server) if line["level"] == "warning"]
        assert (line["name"], line["meant"]) == ("TAILRACE_MAX_RUN", "TAILRACE_MAX_RUNS")


# End


def test_sigterm_closes_streams_refuses_runs_and_lets_steps_end(tmp_path):
    with Server(tmp_path) as server:
        server.create("nap", NAP)
        run_id = server.execute("nap", s="2")
        with connect(f"{server.ws_url}{W}/runs/{run_id}/stream") as stream:
            assert json.loads(stream.recv())["type"] == "step_start"
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                deque(stream, maxlen=0)
            assert (stream.close_code, stream.close_reason) == (1012, "shutting down; resume with after=2")
        answer = server.post(f"{W}/nap/execute", {"runId": "too-late"})
        assert (answer.status, answer.json["runId"]) == (503, "too-late")
        assert "shutting down" in server.get("/ready").json["detail"]
        assert server.get(f"{W}/runs/{run_id}/stream", accept="application/x-ndjson").status == 503
        away = server.get(f"{W}/runs/{run_id}/stream", accept="text/event-stream")
        assert (away.status, away.body) == (200, b"retry: 35000\n\n")
        assert server._ended() == 0
        server.start()
        assert server.finished(run_id)["status"] == "success"
        attempts = [
            event
            for event in server.get(f"{W}/runs/{run_id}/events").json["data"]
            if event["type"] == "step_start"
        ]
        assert len(attempts) == 1, "the step was given the time to end"


def test_what_does_not_end_in_time_is_left_for_the_next_start(tmp_path):
    with Server(tmp_path, TAILRACE_DRAIN_TIMEOUT_S=0.2) as server:
        server.create("nap", NAP)
        run_id = server.execute("nap", s="60")
        while server.run(run_id)["status"] != "running":
            time.sleep(0.02)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 10
        server.start()
        run = server.finished(run_id)
        assert (run["status"], run["error"]["code"]) == ("failed", "interrupted")


def test_a_second_signal_ends_it_at_once(tmp_path):
    with Server(tmp_path) as server:
        server.create("nap", NAP)
        run_id = server.execute("nap", s="60")
        while server.run(run_id)["status"] != "running":
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        while server.get("/ready").status != 503:
            time.sleep(0.02)
        started = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server._ended() == 0
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("hold", [b"", b"GET / HTTP/1.1\r\nHost:", b"POST /api/v2/workflows HTTP/1.1\r\n"])
def test_silent_connections_do_not_keep_it_alive(tmp_path, hold):
    with Server(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(hold)
        time.sleep(0.1)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 10


def test_after_kill_9_a_run_goes_on(tmp_path):
    with Server(tmp_path) as server:
        server.create("wait", {"steps": {"rest": {"type": "wait", "config": {"duration": "1s"}}}})
        run_id = server.execute("wait")
        server.kill_hard()
        server.start()
        assert server.finished(run_id)["status"] == "success"


def test_what_was_accepted_ends_under_limits_that_are_lower_by_now(tmp_path):
    steps = {name: {"type": "wait", "config": {"duration": "100ms"}} for name in "abc"}
    with Server(tmp_path) as server:
        server.create("three", {"steps": steps})
        run_id = server.execute("three")
        server.kill_hard()
    with Server(tmp_path, TAILRACE_MAX_STEPS=2) as server:
        assert server.finished(run_id)["status"] == "success"
        assert server.finished(server.execute("three"))["status"] == "success"
        again = server.post("/api/v2/workflows", {"workflowId": "more", "definition": {"steps": steps}})
        assert (again.status, again.json["errors"][0]["message"]) == (400, "must be 1 to 2 steps, not 3")


def test_lost_views_are_made_again(tmp_path):
    with Server(tmp_path) as server:
        server.create("greet", ECHO)
        run = server.finished(server.execute("greet"))
        server.stop()
        (tmp_path / "tailrace.db.views").unlink()
        server.start()
        assert server.run(run["runId"]) == run


# Its parts


async def test_a_part_that_fails_stops_the_service_and_says_why(tmp_path, monkeypatch):
    async def broken(self):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(Projections, "run", broken)
    async with build(Settings(db=tmp_path / "t.db"), MemoryLog(), port=1) as service:
        async with asyncio.timeout(10):
            await service.stopping.wait()
        assert service.failure == "the projections failed: on purpose"
