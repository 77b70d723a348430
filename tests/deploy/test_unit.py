"""The systemd unit: it gives what the service needs, takes what it does not, and commands are contained under it."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from pathlib import Path

import pytest

from service.ops.machine import OTHER_FILES
from service.ops.settings import Settings, unknown_names
from service.server import GRACE_S
from tests.faults.kill import _orphans
from tests.server import ROOT, Server

UNIT = ROOT / "docs/deploy/tailrace.service"
DEFAULTS = Settings()
EXPOSURE_MAX = 15  # tenths; what systemd-analyze calls OK ends at 49
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze, of Debian's systemd")
# As the unit runs it: no capability, none to be had. (The tests' own user stays: their directories are its.)
BARE = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs")
HIDING = {
    "variables": {"mark": ""},
    "steps": {
        "hide": {
            "type": "command",
            "config": {
                "command": "sh",
                "args": ["-c", "setsid sh -c 'sleep 300; : {{mark}}' >/dev/null 2>&1 & echo hidden"],
            },
        }
    },
}


def unit() -> dict[str, dict[str, list[str]]]:
    """Return every value of every key of every section, as systemd reads it."""
    sections: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            sections[section][key].append(value)
    return sections


def test_its_doctor_looks_at_the_log_that_the_service_has(tmp_path):
    """The command of the unit's head, which has the settings' file but not the unit's own environment."""
    head = UNIT.read_text().partition("[Unit]")[0].replace("#", "").replace("\\\n", "")
    (command,) = [line.split() for line in head.splitlines() if "systemd-run" in line]
    words = command[command.index("/opt/tailrace/bin/tailrace") + 1 :]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
    with Server(tmp_path) as server:
        given = [word.replace("/var/lib/tailrace", str(tmp_path)) for word in words]
        done = subprocess.run(
            [sys.executable, "-m", "service", *given], cwd="/", env=environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert f"those of process {server.process.pid}, which serves the log" in done.stdout
    assert unit()["Service"]["Environment"][0] == "TAILRACE_DB=/var/lib/tailrace/tailrace.db"
    assert "/var/lib/tailrace/tailrace.db" in words


def seconds(text: str) -> float:
    return float(re.fullmatch(r"(\d+)s", text)[1])


def test_it_gives_what_the_service_needs():
    service = unit()["Service"]
    assert seconds(service["TimeoutStopSec"][0]) > DEFAULTS.drain_timeout_s + GRACE_S
    assert service["KillMode"] == ["mixed"], "SIGTERM is for the service alone: it ends its commands in order"
    assert int(service["LimitNOFILE"][0]) >= DEFAULTS.max_watchers + OTHER_FILES
    assert service["Restart"] == ["always"]
    environ = dict(each.split("=", 1) for each in service["Environment"])
    assert list(unknown_names(environ)) == []
    settings = Settings.load(environ)
    assert (
        str(settings.db.parent)
        == f"/var/lib/{service['StateDirectory'][0]}"
        == service["WorkingDirectory"][0]
    )
    assert shlex.split(service["ExecStart"][0])[1:] == ["serve"]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("User", ["tailrace"]),
        ("CapabilityBoundingSet", [""]),
        ("AmbientCapabilities", [""]),
        ("NoNewPrivileges", ["yes"]),
        ("ProtectSystem", ["strict"]),
        ("ProtectHome", ["yes"]),
        ("PrivateTmp", ["yes"]),
        ("PrivateDevices", ["yes"]),
        ("RestrictNamespaces", ["yes"]),
        ("StateDirectoryMode", ["0700"]),
        ("UMask", ["0077"]),
        ("SystemCallFilter", ["@system-service", "~@privileged"]),
    ],
)
def test_it_takes_what_the_service_does_not_need(key, values):
    assert unit()["Service"][key] == values


@needs_systemd
def test_systemd_understands_every_line(tmp_path):
    path = tmp_path / "tailrace.service"
    path.write_text(
        UNIT.read_text().replace("/opt/tailrace/bin/tailrace serve", f"{shutil.which('true')} serve")
    )
    done = subprocess.run([ANALYZE, "verify", path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    path.write_text(path.read_text().replace("NoNewPrivileges=yes", "NoNewPrivilege=yes"))
    done = subprocess.run([ANALYZE, "verify", path], capture_output=True, text=True, timeout=60)
    assert "NoNewPrivilege" in done.stderr, "it would say so"


@needs_systemd
def test_systemd_rates_it_as_safe():
    rated = [ANALYZE, "security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE_MAX}", UNIT]
    done = subprocess.run(rated, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-500:]


# What is taken away must not break the containment of commands


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """Start Python as the unit would; ``calls`` holds, after the end, what it asked the kernel for."""
    wrapper, calls = tmp_path / "python", tmp_path / "calls"
    counted = f"strace -f -c -S name -o {calls}"
    wrapper.write_text(f'#!/bin/sh\numask 077\nexec {" ".join(BARE)} $COUNTED {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(wrapper))
    return counted, calls


def until_gone(mark: str) -> None:
    deadline = time.monotonic() + 20
    while _orphans(mark):
        assert time.monotonic() < deadline, "a command outlived the service"
        time.sleep(0.02)


def test_commands_are_contained_without_any_right(tmp_path, bare):
    mark = str(uuid.uuid4())
    with Server(tmp_path) as server:
        assert '"contained_by": "watchdog"' in server.diagnostics.read_text()
        server.create("hiding", HIDING)
        run = server.finished(server.execute("hiding", mark=mark))
        assert run["status"] == "success", run
        assert _orphans(mark) == [], "what a command leaves behind goes with it"
        resting = {"variables": {"mark": ""}, "steps": {"rest": {"type": "command", "config": {"command": "sh", "args": ["-c", "setsid sleep 300 & sleep 300; : {{mark}}"]}}}}  # fmt: skip
        server.create("resting", resting)
        server.execute("resting", mark=mark)
        deadline = time.monotonic() + 20
        while not _orphans(mark):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.kill_hard()
        until_gone(mark)
        server.start()
        assert {path.stat().st_mode & 0o077 for path in tmp_path.glob("tailrace.db*")} == {0}


@needs_systemd
def test_the_service_asks_the_kernel_for_nothing_that_the_unit_forbids(tmp_path, bare, monkeypatch):
    counted, calls = bare
    monkeypatch.setenv("COUNTED", counted)
    server = Server(tmp_path)
    server.start()
    try:
        server.create("hiding", HIDING)
        assert server.finished(server.execute("hiding", mark="x"))["status"] == "success"
        assert server.post("/api/v2/backups").status == 200
    finally:  # strace does not hand signals on: the service itself gets it
        os.kill(int(Path(f"{server.db}.lock").read_text().split()[0]), signal.SIGTERM)
        assert server._ended() == 0
    allowed = _allowed("@system-service") - _allowed("@privileged")
    asked = {}
    for line in calls.read_text().splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[0][0].isdigit() and fields[-1] != "total":
            errors = int(fields[4]) if len(fields) == 6 else 0
            asked[fields[-1]] = int(fields[3]) - errors
    assert asked["fdatasync"] > 0
    assert asked["clone"] + asked.get("clone3", 0) + asked.get("vfork", 0) > 0
    done = {name for name, count in asked.items() if count}  # what fails by itself is not missed
    assert done - allowed <= {"fchown"}, "which SQLite does as root alone, and the unit's user is not"


def _allowed(group: str) -> set[str]:
    said = subprocess.run(
        [ANALYZE, "--no-pager", "syscall-filter", group], capture_output=True, text=True, check=True
    )
    names = {line.strip() for line in said.stdout.splitlines() if line.startswith(" ") and "#" not in line}
    return {each for name in names for each in (_allowed(name) if name.startswith("@") else {name})}
