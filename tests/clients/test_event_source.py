"""A browser's own EventSource, which nobody helps: it comes back to where it was, even if it has no event yet."""

import json
import time

import pytest

from tests.clients.javascript import texts
from tests.clients.waiting import Waiting
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


def test_it_gets_over_a_restart_with_a_running_step(page, tmp_path):
    """The service drains for longer than a browser waits by itself, and answers 503 meanwhile."""
    with Server(tmp_path, TAILRACE_DRAIN_TIMEOUT_S=5) as server:
        run = Waiting(server, tmp_path)
        page.goto(f"{server.url}/health")
        page.evaluate(WATCH, f"/api/v2/workflows/runs/{run.id}/stream")
        page.wait_for_function("window.seen.events.some((data) => data.includes('waiting'))")
        began = time.monotonic()
        server.restart()
        assert time.monotonic() - began > 4, "it did not drain"
        run.go_on()
        page.wait_for_function(ENDED)
        seen = page.evaluate("window.seen")
        expected = texts(server, run.id)
    assert seen["events"] == expected
    assert seen["ended"] == {"status": "success", "lastSeq": json.loads(expected[-1])["seq"]}
    assert seen["states"] == ["open", "connecting", "open", "connecting", "closed"]


@pytest.mark.parametrize("query", ["?after=tail", "?after=-1&types=step_complete"])
def test_cut_off_before_its_first_event_it_loses_nothing(page, relay, waiting, query):
    page.goto(f"{relay.url}/health")
    page.evaluate(WATCH, f"/api/v2/workflows/runs/{waiting.id}/stream{query}")
    page.wait_for_function("window.seen.states.at(-1) === 'open'")
    relay.wait_for(b"\nid: ")
    relay.cut()
    waiting.go_on()
    page.wait_for_function(ENDED)
    seen = page.evaluate("window.seen")
    new = waiting.new
    assert seen["events"] == (new if "tail" in query else [text for text in new if "step_complete" in text])
    assert seen["states"] == ["open", "connecting", "open", "connecting", "closed"]
