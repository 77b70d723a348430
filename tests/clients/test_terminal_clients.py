"""The guide's wscat, Python and Go clients: live and late, each prints the run's events and ends with them."""

import json
import os
import re
import subprocess
import sys
from uuid import uuid4

import pytest

from tests.clients.client import ROOT
from tests.clients.published import at, block
from tests.clients.stored import guide_lines, stored

FIRST = "Starting step: Fetch User Data"
WORKFLOW = "test-websocket-workflow"


def wscat_client(server, run_id, wscat, _):
    command = block("bash", "<RUN_ID>").strip()
    path = f"{wscat}{os.pathsep}{os.environ['PATH']}"
    return ("bash", "-c", at(command, server.port, run_id=run_id)), {"PATH": path}


def python_client(server, run_id, _, directory):
    program = directory / "client.py"
    program.write_text(at(block("python", "monitor_workflow"), server.port, run_id=run_id))
    return (sys.executable, "-u", "-W", "error", str(program)), {}


def go_client(server, run_id, _, directory):
    (directory / "main.go").write_text(at(block("go", "gorilla"), server.port, run_id=run_id))
    env = {
        "GO111MODULE": "off",
        "GOPATH": "/usr/share/gocode",
        "GOFLAGS": "",
        "GOCACHE": str(ROOT / ".cache/go"),
    }
    build = ["go", "build", "-o", str(directory / "client"), str(directory / "main.go")]
    subprocess.run(build, check=True, env={**os.environ, **env})
    return (str(directory / "client"),), {}


def as_printed_by_wscat(texts, run_id):
    return texts


def as_printed_by_python(texts, run_id):
    upper = [re.sub(r"^  \[(\w+)\]", lambda found: found[0].upper(), line) for line in guide_lines(texts)]
    return [f"Connected to workflow run: {run_id}", *upper, "Connection closed"]


def as_printed_by_go(texts, run_id):
    return [f"Connected to workflow run: {run_id}", *guide_lines(texts)]


CLIENTS = {
    "wscat": (wscat_client, as_printed_by_wscat),
    "python": (python_client, as_printed_by_python),
    "go": (go_client, as_printed_by_go),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_live_and_late_print_the_same_run(name, server, closed_upstream, client, wscat, tmp_path):
    program, as_printed = CLIENTS[name]
    run_id = f"{name}-{uuid4()}"
    command, env = program(server, run_id, wscat, tmp_path)
    body = {"runId": run_id, "variables": {"apiUrl": closed_upstream.url}}
    assert server.post(f"/api/v2/workflows/{WORKFLOW}/execute", body).status == 202

    live = client(*command, env=env)
    live.wait_for(FIRST)
    assert server.run(run_id)["status"] == "running"
    closed_upstream.open.set()
    printed = live.ended()
    late = client(*command, env=env)

    expected = as_printed(stored(server, run_id), run_id)
    assert [line for line in printed if line] == expected
    assert [line for line in late.ended() if line] == expected
    if name == "go":
        assert "close 1000 (normal): run success lastSeq=" in live.errors.read_text()


def test_wscat_on_a_terminal_names_the_reason(server, upstream, client, wscat):
    run_id = server.execute(WORKFLOW, apiUrl=upstream.url)
    texts = stored(server, run_id)
    (_, _, command), env = wscat_client(server, run_id, wscat, None)
    terminal = client("script", "--quiet", "--return", "--command", command, "/dev/null", env=env)
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|\r", "", "\n".join(terminal.ended()))
    assert re.findall(r"^(?:> )?< (.*)$", plain, re.MULTILINE) == texts
    assert f'Disconnected (code: 1000, reason: "run success lastSeq={len(texts)}")' in plain


def test_a_run_that_nobody_knows_is_a_404_to_each(server, client, wscat, tmp_path):
    for program, _ in CLIENTS.values():
        command, env = program(server, "nobody-knows", wscat, tmp_path)
        refused = client(*command, env=env)
        assert refused.process.wait(30) != 0
        said = refused.errors.read_text() + "".join(refused.printed)
        assert "404" in said or "bad handshake" in said  # gorilla does not say the status


def test_many_clients_of_all_kinds_on_one_run(server, closed_upstream, client, wscat, tmp_path):
    run_id = f"many-{uuid4()}"
    body = {"runId": run_id, "variables": {"apiUrl": closed_upstream.url}}
    assert server.post(f"/api/v2/workflows/{WORKFLOW}/execute", body).status == 202
    watchers = []
    for name, (program, as_printed) in CLIENTS.items():
        (tmp_path / name).mkdir()
        command, env = program(server, run_id, wscat, tmp_path / name)
        watchers += [(client(*command, env=env), as_printed) for _ in range(4)]
    for watcher, _ in watchers:
        watcher.wait_for(FIRST)
    closed_upstream.open.set()
    texts = stored(server, run_id)
    for watcher, as_printed in watchers:
        assert [line for line in watcher.ended() if line] == as_printed(texts, run_id)
    assert {json.loads(text)["runId"] for text in texts} == {run_id}
