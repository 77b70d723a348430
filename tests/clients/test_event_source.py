"""A browser's own EventSource, which nobody helps: it goes on behind its last event, whatever became of the connection."""

import json
import time

import pytest

from tests.clients.between import Relay
from tests.clients.javascript import texts
from tests.clients.test_browser import TIMEOUT_MS
from tests.server import Server

# What it gives, in `seen`; it is closed by nobody but itself.
WATCH = """(path) => {
    const seen = (window.seen = { events: [], ended: null, states: [] });
    const source = new EventSource(path);
    source.onopen = () => seen.states.push("open");
    source.onmessage = ({ data }) => seen.events.push(data);
    source.addEventListener("end", ({ data }) => (seen.ended ??= JSON.parse(data)));
    source.onerror = () => seen.states.push(["connecting", "open", "closed"][source.readyState]);
}"""
ENDED = "window.seen.ended !== null && window.seen.states.at(-1) === 'closed'"


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    yield page
    page.close()


def waits_for(gate) -> dict:
    """Return a workflow whose first step runs until there is a file."""
    script = 'echo waiting; until [ -e "$0" ]; do sleep 0.05; done; echo done'
    step = {
        "type": "command",
        "config": {"command": "sh", "args": ["-c", script, str(gate)]},
        "onInterrupt": "retry",
    }
    after = {"type": "command", "config": {"command": "true"}, "dependsOn": ["wait"]}
    return {"steps": {"wait": step, "after": after}}


def test_it_gets_over_a_restart_with_a_running_step(page, tmp_path):
    """The service drains for longer than a browser waits by itself, and answers 503 meanwhile."""
    gate = tmp_path / "gate"
    with Server(tmp_path, TAILRACE_DRAIN_TIMEOUT_S=5) as server:
        server.create("waits", waits_for(gate))
        run_id = server.execute("waits")
        page.goto(f"{server.url}/health")
        page.evaluate(WATCH, f"/api/v2/workflows/runs/{run_id}/stream")
        page.wait_for_function("window.seen.events.some((data) => data.includes('waiting'))")
        began = time.monotonic()
        server.restart()
        assert time.monotonic() - began > 4, "it did not drain"
        gate.touch()
        page.wait_for_function(ENDED)
        seen = page.evaluate("window.seen")
        expected = texts(server, run_id)
        assert seen["events"] == expected
        assert seen["ended"] == {"status": "success", "lastSeq": json.loads(expected[-1])["seq"]}
        assert seen["states"] == ["open", "connecting", "open", "connecting", "closed"]


@pytest.mark.parametrize("query", ["?after=tail", "?after=-1&types=step_complete"])
def test_it_loses_nothing_that_comes_while_it_is_away_before_its_first_event(page, tmp_path, hosted, query):
    gate = tmp_path / "gate"
    hosted.create(gate.parent.name, waits_for(gate))
    run_id = hosted.execute(gate.parent.name)
    with Relay(hosted.port) as relay:
        page.goto(f"{relay.url}/health")
        while b"waiting" not in hosted.get(f"/api/v2/workflows/runs/{run_id}/events").body:
            time.sleep(0.02)
        page.evaluate(WATCH, f"/api/v2/workflows/runs/{run_id}/stream{query}")
        page.wait_for_function("window.seen.states.at(-1) === 'open'")
        time.sleep(0.3)  # to take what the stream begins with
        relay.cut()
        gate.touch()
        hosted.finished(run_id)
        page.wait_for_function(ENDED)
    seen = page.evaluate("window.seen")
    events = texts(hosted, run_id)
    new = events[next(n for n, text in enumerate(events) if '"waiting"' in text) + 1 :]
    assert seen["events"] == (new if "tail" in query else [text for text in new if "step_complete" in text])
    assert seen["states"] == ["open", "connecting", "open", "connecting", "closed"]
