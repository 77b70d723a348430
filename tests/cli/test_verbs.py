"""The verbs against the real service: what they print, and the code they exit with."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.server import Server

ROOT = Path(__file__).parent.parent.parent
CHATTY = {
    "variables": {"n": 0},
    "steps": {
        "say": {
            "name": "Say it",
            "type": "command",
            "config": {"command": "sh", "args": ["-c", "echo one; echo two >&2; printf '\\033[31mred'"]},
            "output": {"n": "exitCode"},
        }
    },
}
FAILING = {"steps": {"bad": {"type": "command", "config": {"command": "false"}}}}
RESTING = {"steps": {"rest": {"type": "wait", "config": {"duration": "60s"}}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("cli")) as server:
        yield server


class Result:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "service", *map(str, arguments)]


def environment(url: str) -> dict[str, str]:
    return {**os.environ, "TAILRACE_URL": url, "PYTHONPATH": str(ROOT)}


def tailrace(url: str, *arguments: object, stdin: str = "") -> Result:
    return Result(
        subprocess.run(
            command(*arguments), env=environment(url), input=stdin, capture_output=True, text=True, timeout=60
        )
    )


def written(directory: Path, document: object, name: str = "flow.json") -> Path:
    path = directory / name
    path.write_text(json.dumps(document))
    return path


def frames(server: Server, run_id: str) -> list[str]:
    """Return the texts of a finished run's stream."""
    from websockets.sync.client import connect

    with connect(f"{server.ws_url}/api/v2/workflows/runs/{run_id}/stream") as connection:
        return list(connection)  # ends with close 1000 alone


def test_run_watch_prints_each_event_and_exits_0(server, tmp_path):
    result = tailrace(server.url, "run", written(tmp_path, CHATTY), "--watch")
    assert result.code == 0, result
    assert re.fullmatch(r"run \S+\nrun success: (\d+) of \1 events\n", result.err)
    lines = [re.sub(r"^[\d:.]{12}  \S+ +", "", line) for line in result.out.splitlines()]
    assert lines[0] == "▶ Say it"
    assert lines[1] == "info  Starting step: Say it"
    assert {"info  one", "warn  two"} <= set(lines)
    assert "info  \\x1b[31mred" in lines  # a terminal must not obey what a command printed
    assert re.fullmatch(r"✔ Say it success \d+ ms", lines[-1])


def test_json_is_the_stream_byte_for_byte(server, tmp_path):
    result = tailrace(server.url, "run", written(tmp_path, CHATTY), "--watch", "-o", "json")
    assert result.code == 0, result
    run_id = result.err.split()[1]
    texts = frames(server, run_id)
    assert result.out.splitlines() == texts
    assert result.err.splitlines()[1:] == [f"run success: {len(texts)} of {len(texts)} events"]
    assert tailrace(server.url, "watch", run_id, "-o", "json").out.splitlines() == texts
    assert tailrace(server.url, "watch", run_id, "--after", 2, "-o", "json").out.splitlines() == texts[2:]
    history = tailrace(server.url, "history", run_id, "-o", "json")
    assert history.code == 0, history
    assert history.out.splitlines() == texts


def test_a_failed_run_exits_1(server, tmp_path):
    result = tailrace(server.url, "run", written(tmp_path, FAILING), "--watch")
    assert result.code == 1, result
    assert "✘ bad failed" in result.out


def test_a_cancelled_run_exits_3(server, tmp_path):
    started = tailrace(server.url, "run", written(tmp_path, RESTING))
    run_id = started.out.strip()
    assert tailrace(server.url, "cancel", run_id, "--reason", "enough").code == 0
    result = tailrace(server.url, "watch", run_id)
    assert result.code == 3, result
    assert "rest cancelled" in result.out
    again = tailrace(server.url, "cancel", run_id)
    assert again.code == 2
    assert "is over: cancelled" in again.err


def heed_interrupts() -> None:
    """Undo what a shell does to programs in its background, and so maybe to these tests: ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_history_does_not_wait_and_watch_ends_at_once_when_interrupted(server, tmp_path):
    run_id = tailrace(server.url, "run", written(tmp_path, RESTING)).out.strip()
    with subprocess.Popen(
        command("watch", run_id, "-o", "json"), env=environment(server.url), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,
    ) as watching:  # fmt: skip
        seen = [watching.stdout.readline() for _ in range(2)]
        history = tailrace(server.url, "history", run_id, "-o", "json")
        assert (history.code, history.out) == (0, "".join(seen)), history
        watching.send_signal(signal.SIGINT)
        out, err = watching.communicate(timeout=60)
    assert (watching.returncode, out, err) == (130, "", "")
    assert tailrace(server.url, "cancel", run_id).code == 0


def test_every_fault_is_a_line_with_its_place_and_exits_2(server, tmp_path):
    bad = {"steps": {"a": {"type": "nothing", "dependsOn": ["b"]}}}
    result = tailrace(server.url, "run", written(tmp_path, bad))
    assert result.code == 2, result
    assert result.out == ""
    lines = result.err.splitlines()
    assert lines[0].startswith("tailrace: ")
    assert any(line.startswith("  /definition/steps/a/type: ") for line in lines)
    assert any(line.startswith("  /definition/steps/a/dependsOn/0: ") for line in lines)


@pytest.mark.parametrize("verb", ["watch", "show", "history", "cancel"])
def test_an_unknown_run_exits_2(server, verb):
    result = tailrace(server.url, verb, "nobody-knows")
    assert (result.code, result.out) == (2, "")
    assert result.err == "tailrace: There is no run 'nobody-knows'.\n"


@pytest.mark.parametrize("verb", [["ls"], ["watch", "x"], ["run", "-"]])
def test_no_service_exits_4(verb):
    result = tailrace("http://127.0.0.1:9", *verb, stdin='{"workflowId": "a", "definition": {}}')
    assert (result.code, result.out) == (4, "")
    assert re.fullmatch(r"tailrace: http://127\.0\.0\.1:9 does not answer: .*refused.*\n", result.err)


def test_one_who_asks_too_often_is_told_when_to_come_back(tmp_path, monkeypatch):
    with Server(tmp_path, TAILRACE_MAX_EXECUTES_PER_MINUTE=1) as server:
        monkeypatch.setenv("TAILRACE_KEY", server.create_key("ann", "run,write,read"))
        path = written(tmp_path, CHATTY)
        assert tailrace(server.url, "run", path).code == 0
        result = tailrace(server.url, "run", path)
    assert result.code == 2
    assert re.search(r"within a minute\. Try again in \d+ s\.$", result.err.strip()), result


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "/nowhere.json"], "No such file"),
        (["run", "-"], "is not JSON"),
        (["run", "-", "--var", "x"], "is not name=value"),
        (["ls", "--server", "127.0.0.1:8080"], "is not an address such as"),
        (["ls", "workflows", "--status", "failed"], "select runs, not workflows"),
        (["watch", "x", "--after", "-1"], "is not in the range"),
        (["fly"], "No such command"),
    ],
)
def test_a_wrong_command_exits_2(arguments, said):
    result = tailrace("http://127.0.0.1:9", *arguments)
    assert result.code == 2, result
    assert said in re.sub(r"[\s│]+", " ", result.err), result


def test_run_creates_then_updates_and_hands_over_variables(server, tmp_path):
    path = written(tmp_path, CHATTY, "two words.json")
    tailrace(server.url, "run", path)
    path.write_text(json.dumps({"name": "Second", "definition": CHATTY | {"onError": "continue"}}))
    values = ["n=5", "text=hello", 'deep={"a": [1]}', 'quoted="7"', "odd=NaN", "equals=a=b", "empty="]
    started = tailrace(
        server.url, "run", path, *(word for value in values for word in ("--var", value)), "-o", "json"
    )
    accepted = json.loads(started.out)
    assert accepted["workflowId"] == "two-words"
    run = server.finished(accepted["runId"])
    assert run["workflowVersion"] == 2
    assert run["context"]["variables"] == {
        "n": 0, "text": "hello", "deep": {"a": [1]}, "quoted": "7", "odd": "NaN", "equals": "a=b", "empty": "",
    }  # fmt: skip


def test_a_workflow_id_of_null_is_none(server, tmp_path):
    path = written(tmp_path, {"workflowId": None, "definition": CHATTY}, "unnamed.json")
    started = tailrace(server.url, "run", path, "-o", "json")
    assert started.code == 0, started
    assert json.loads(started.out)["workflowId"] == "unnamed"


def test_lists_and_show(server, tmp_path):
    run_id = tailrace(server.url, "run", written(tmp_path, CHATTY, "listed.json")).out.strip()
    server.finished(run_id)
    rows = tailrace(server.url, "ls", "--workflow", "listed").out.splitlines()
    assert rows[0].split() == ["RUN", "WORKFLOW", "STATUS", "STARTED", "DURATION"]
    assert rows[1].split()[:3] == [run_id, "listed", "success"]
    assert len(rows) == 2
    page = json.loads(tailrace(server.url, "ls", "--status", "success", "-o", "json").out)
    assert run_id in [run["runId"] for run in page["data"]]
    assert "listed" in tailrace(server.url, "ls", "workflows").out
    shown = tailrace(server.url, "show", run_id).out
    assert re.search(r"^status +success$", shown, re.MULTILINE)
    assert re.search(r"^say +success +1 +\d+ ms +Say it$", shown, re.MULTILINE)
    assert json.loads(tailrace(server.url, "show", run_id, "-o", "json").out) == server.run(run_id)


def test_watch_goes_on_where_a_crash_of_the_service_cut_it_off(tmp_path):
    steps = {"say": CHATTY["steps"]["say"] | {"output": {}}}
    steps["rest"] = {"type": "wait", "dependsOn": ["say"], "config": {"duration": "1500ms"}}
    with Server(tmp_path) as server, ExitStack() as stack:
        server.create("long", {"steps": steps})
        run_id = server.execute("long")
        watching = stack.enter_context(
            subprocess.Popen(
                command("watch", run_id, "-o", "json"), env=environment(server.url), text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
        seen = [watching.stdout.readline() for _ in range(3)]
        server.kill_hard()
        server.start()
        deadline = threading.Timer(60, watching.kill)
        deadline.start()
        seen += watching.stdout.readlines()
        err = watching.stderr.read()
        deadline.cancel()
        assert watching.wait(60) == 0, err
        assert re.search(r"tailrace: closed 1006 .*; again in \d+\.\d s after seq \d+", err)
        assert [line.rstrip("\n") for line in seen] == frames(server, run_id)
