"""A backup under load is a moment of the log; restored as docs/operations.md says, it is a log that goes on."""

import json
import re
import subprocess
import threading
import time
from http.client import HTTPException
from pathlib import Path
from typing import Self

import pytest
from websockets.sync.client import connect

from tests.cli.test_backup import events_of
from tests.cli.test_verbs import command, environment
from tests.faults.checker import faults_of_frames, faults_of_history
from tests.faults.kill import DEFINITION as SMALL
from tests.faults.kill import stored_bytes
from tests.server import ROOT, Server

W = "/api/v2/workflows"
STARTERS = 3
LONG_EVENTS = 2_500  # enough for sealed segments, and all of it after the backup
LOOP = "until [ -e {{stop}} ]; do for i in 1 2 3 4 5; do read u < /proc/sys/kernel/random/uuid; echo $u; done; sleep 0.002; done"
LONG = {
    "variables": {"stop": ""},
    "steps": {"say": {"type": "command", "onInterrupt": "retry", "config": {"command": "sh", "args": ["-c", "x={{stop}}; " + LOOP]}}},
}  # fmt: skip
MANY = {"steps": {"say": {"type": "command", "config": {"command": "seq", "args": ["30000"]}}}}


class Load:
    """``with Load(server):`` starts runs from several threads for as long as it lasts."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.started = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._start_runs, daemon=True) for _ in range(STARTERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _start_runs(self) -> None:
        while not self._over.is_set():
            try:
                self.server.execute("small")
            except (OSError, HTTPException):
                continue
            self.started += 1
            time.sleep(0.01)


def head(server: Server) -> int:
    return server.get("/api/v2/events?cursor=999999999").json["lastCursor"]


def until(condition, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def history(server: Server, run_id: str) -> list[bytes]:
    events: list[bytes] = []
    while True:
        after = f"&after={len(events) - 1}" if events else ""
        answer = server.get(f"{W}/runs/{run_id}/events?types=all&limit=1000{after}")
        assert answer.status == 200, answer
        events += stored_bytes(answer.body)
        if answer.json["nextCursor"] is None:
            return events


def frames(server: Server, run_id: str) -> list[bytes]:
    with connect(f"{server.ws_url}{W}/runs/{run_id}/stream", compression=None) as connection:
        return [text.encode() for text in connection]


def block(section: str, number: int = 0) -> list[str]:
    """Return the commands of a section of the page."""
    page = (ROOT / "docs/operations.md").read_text()
    text = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"```bash\n(.*?)```", text, re.DOTALL)[number].splitlines()


class Operator:
    """Types what the page says; its paths, its user and its systemctl are ours."""

    def __init__(self, server: Server, backups: Path) -> None:
        self.server = server
        self.backups = backups
        self.said = ""

    def types(self, lines: list[str]) -> None:
        for line in lines:
            if line == "systemctl stop tailrace":
                assert self.server.stop() == 0
            elif line == "systemctl start tailrace":
                self.server.start()
            else:
                here = line.replace("/var/lib/tailrace", str(self.server.db.parent)).replace(
                    "-o tailrace -g tailrace ", ""
                )
                here = here.replace("/var/backups", str(self.backups))
                if here.startswith("tailrace "):
                    here = " ".join(map(str, command())) + here.removeprefix("tailrace")
                env = environment(self.server.url) | {"TAILRACE_PORT": "0"}
                done = subprocess.run(
                    here,
                    shell=True,
                    env=env,
                    cwd=self.server.db.parent,
                    capture_output=True,
                    text=True,
                    timeout=120,
                )
                assert done.returncode == 0, (here, done)
                self.said = done.stdout


@pytest.fixture
def backups(tmp_path):
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups"


@pytest.mark.parametrize("moved", ["all files", "the log alone"])
def test_a_backup_under_load_restored_goes_on_and_refuses_who_saw_more(tmp_path, backups, moved):
    (tmp_path / "service").mkdir()
    stop = tmp_path / "stop"
    with Server(tmp_path / "service", TAILRACE_DRAIN_TIMEOUT_S=1) as server:
        for name, definition in (("small", SMALL), ("long", LONG), ("many", MANY)):
            server.create(name, definition)
        server.finished(server.execute("many"))
        long = server.execute("long", stop=str(stop))
        operator = Operator(server, backups)
        with Load(server) as load:
            until(lambda: load.started >= 10)
            acknowledged = head(server)
            operator.types(block("Backup"))
            started = load.started
            until(lambda: load.started >= started + 5)
        position = int(re.search(r"up to position ([\d,]+)", operator.said)[1].replace(",", ""))
        assert acknowledged <= position < head(server), "the load went on meanwhile"
        until(lambda: server.run(long)["lastSeq"] > LONG_EVENTS)
        stop.touch()
        assert server.finished(long)["status"] == "success"
        seen, head_seen = frames(server, long), head(server)
        frames(server, long)  # by now it is sealed, or wanted

        backup = events_of(backups / "tailrace.db")
        lines = block("Restore")
        if moved == "the log alone":  # who forgets the rest must get the same
            alone = "mv /var/lib/tailrace/tailrace.db /var/lib/tailrace/replaced/"
            lines = [alone if line.startswith("find ") else line for line in lines]
        at = next(n for n, line in enumerate(lines) if line.startswith(("find ", "mv ")))
        operator.types(lines[:at])
        assert backup == events_of(server.db)[:position], "every stream is a prefix of the live one"
        assert len(backup) == position
        operator.types(lines[at:])

        for run_id in {name.removeprefix("run/") for _, name, *_ in backup if name.startswith("run/")}:
            assert server.finished(run_id)["status"] == "success"
            events = history(server, run_id)
            kept = [data for _, name, _, _, _, data, _ in backup if name == f"run/{run_id}"]
            assert events[: len(kept)] == kept
            assert faults_of_history(run_id, events) == []
            assert faults_of_frames(run_id, frames(server, run_id), events) == []
        assert b"interrupted" in b"".join(history(server, long))
        last_seen = json.loads(seen[-1])["seq"]
        for path in (
            f"{W}/runs/{long}/stream?after={last_seen}",
            f"{W}/runs/{long}/events?after={last_seen}",
            f"/api/v2/events?cursor={head_seen + 10**6}",
        ):
            assert server.get(path).status == 409, path
        listed = server.get(f"{W}/runs?limit=1000").json["data"]
        assert len(listed) == len({name for _, name, *_ in backup if name.startswith("run/")})
    assert subprocess.run(command("verify", server.db), env=environment("")).returncode == 0


def test_a_restart_of_the_service_does_not_end_a_backup(tmp_path, backups):
    """Killed again and again while it is read, the service has only to come back."""
    with Server(tmp_path) as server:
        server.create("many", MANY)
        for run_id in [server.execute("many") for _ in range(4)]:
            server.finished(run_id)
        position = head(server)
        with subprocess.Popen(
            command("backup", backups / "b.db", "-o", "json"), env=environment(server.url), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as backing_up:  # fmt: skip
            partial = backups / "b.db.partial" / "b.db"
            until(lambda: partial.exists() and partial.stat().st_size > 2**20)
            server.kill_hard()
            server.start()
            out, err = backing_up.communicate(timeout=120)
        assert backing_up.returncode == 0, err
        assert "again in" in err, "it had come to its end before the kill"
        assert json.loads(out)["position"] == position
    assert events_of(backups / "b.db") == events_of(server.db)[:position]


def test_the_other_commands_of_the_page(tmp_path, backups):
    (tmp_path / "service").mkdir(mode=0o700)
    with Server(tmp_path / "service") as server:
        operator = Operator(server, backups)
        doctor = block("Is everything as it should be?")
        server.create("small", SMALL)
        server.finished(server.execute("small"))
        operator.types(doctor)
        assert f"those of process {server.process.pid}" in operator.said
        operator.types(["systemctl stop tailrace", *block("Backup", 1), *block("Look at a log")])
        assert operator.said.endswith("; whole\n")
        assert events_of(backups / "tailrace.db") == events_of(server.db)
        operator.types(doctor)
        assert "none runs on this log" in operator.said
