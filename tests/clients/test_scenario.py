"""The guide's complete test scenario, its curl lines and its messages, word for word."""

import json
import os
import re
import subprocess

from tests.clients.client import ROOT
from tests.clients.published import at, block, examples
from tests.clients.stored import stored
from tests.server import Server


def _bash(command: str) -> str:
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True
    ).stdout


def test_create_execute_connect(tmp_path, upstream, client, wscat):
    with Server(tmp_path, TAILRACE_HTTP_ALLOW="127.0.0.1") as server:
        create = at(block("bash", '"workflowId"'), server.port, upstream=upstream.url)
        execute = at(block("bash", '"variables": {\n      "apiUrl"'), server.port, upstream=upstream.url)

        created = json.loads(_bash(create))
        started = json.loads(_bash(execute))
        connect = at(block("bash", "<RUN_ID>"), server.port, run_id=started["runId"])
        watcher = client("bash", "-c", connect, env={"PATH": f"{wscat}{os.pathsep}{os.environ['PATH']}"})
        texts = watcher.ended()

        assert created["workflowId"] == started["workflowId"] == "test-websocket-workflow"
        shown = [line.removeprefix("< ") for line in block("", "step_start").splitlines()]
        assert _outline(shown) == [line for line in _outline(texts) if line in set(_outline(shown))]
        assert server.run(started["runId"])["status"] == "success"
        said = [json.loads(text)["payload"].get("message") for text in texts if text]
        assert "Processing user 1" in said


def _outline(texts: list[str]) -> list[tuple[str, ...]]:
    """Return type, step, and name or message of each event."""
    events = [json.loads(text) for text in texts if text]
    return [
        (event["type"], payload["stepId"], payload.get("stepName", payload.get("message", "")))
        for event in events
        for payload in [event["payload"]]
    ]


def test_messages_have_the_published_keys_in_the_published_order(server, upstream):
    run_id = server.execute("test-websocket-workflow", apiUrl=upstream.url)
    events = [json.loads(text) for text in stored(server, run_id)]
    published = [json.loads(example) for example in examples()]
    assert {example["type"] for example in published} == {event["type"] for event in events}
    for example in published:
        for event in (event for event in events if event["type"] == example["type"]):
            assert list(event)[:3] == list(example) == ["runId", "type", "payload"]
            keys = list(example["payload"])
            assert [key for key in event["payload"] if key in keys] == keys


def test_execute_without_a_body(server):
    server.create("my-workflow-id", {"steps": {"say": {"type": "command", "config": {"command": "true"}}}})
    lines = block("bash", "my-workflow-id").splitlines()
    (curl,) = (line for line in lines if line.startswith("curl"))
    started = json.loads(_bash(at(curl, server.port)))
    assert server.finished(started["runId"])["status"] == "success"


def test_the_readme_says_what_works(server, upstream):
    readme = (ROOT / "README.md").read_text()
    create, execute, *_ = re.findall(r"^curl .*?(?=\n```|\nwscat)", readme, re.DOTALL | re.MULTILINE)
    create = at(create, server.port, upstream=upstream.url).replace('"test-websocket-workflow"', '"readme"')
    assert json.loads(_bash(create))["version"] == 1
    execute = at(execute, server.port).replace("/test-websocket-workflow/", "/readme/")
    texts = stored(server, json.loads(_bash(execute))["runId"])
    shown = [line[2:] for line in readme.splitlines() if line.startswith("< ")]
    assert len(shown) == 4
    for line in shown:
        seq = int(re.search(r'"seq":(\d+)', line)[1])
        for piece in re.split(r'…"?|"duration":\d+,', line):
            assert piece.strip('",') in texts[seq - 1]
