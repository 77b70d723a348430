"""The guide's snippet in the console of a browser: live, late, and from a page of somebody else."""

import json
from uuid import uuid4

from tests.clients.client import PAGE_TIMEOUT_MS
from tests.clients.published import at, block
from tests.clients.stored import stored

WORKFLOW = "test-websocket-workflow"


class Console:
    """The console of a page of the service: the lines and, of ``Received:``, the objects."""

    def __init__(self, browser, url: str) -> None:
        self.page = browser.new_page()
        self.page.set_default_timeout(PAGE_TIMEOUT_MS)
        self.page.goto(url)
        self._messages = []
        self.page.on("console", self._print)

    def _print(self, message) -> None:
        if not message.location["url"].endswith("/favicon.ico"):  # the browser's own wish, not the snippet's
            self._messages.append(message)

    @property
    def lines(self) -> list[str]:
        return [each.text for each in self._messages if not each.text.startswith("Received:")]

    @property
    def received(self) -> list[dict]:
        return [each.args[1].json_value() for each in self._messages if each.text.startswith("Received:")]

    def run(self, snippet: str) -> None:
        self.page.evaluate(f"(() => {{ {snippet} }})()")

    def wait_for(self, line: str) -> None:
        while line not in self.lines:
            self.page.wait_for_event("console")


def as_printed(events):
    """Return what the guide's snippet prints for these events, besides the events."""
    for event in events:
        payload = event["payload"]
        match event["type"]:
            case "step_start":
                yield f"Step {payload['stepId']} started"
            case "step_complete":
                yield f"Step {payload['stepId']} completed in {payload['duration']}ms"
            case "step_log":
                yield f"[{payload['level'].upper()}] {payload['message']}"
            case "variable_change":
                yield f"Variable {payload['varName']} changed"


def test_live_and_late(browser, server, closed_upstream):
    run_id = f"browser-{uuid4()}"
    snippet = at(block("javascript", "new WebSocket"), server.port, run_id=run_id)
    body = {"runId": run_id, "variables": {"apiUrl": closed_upstream.url}}
    assert server.post(f"/api/v2/workflows/{WORKFLOW}/execute", body).status == 202
    page = f"http://localhost:{server.port}/health"

    live = Console(browser, page)
    live.run(snippet)
    live.wait_for("[INFO] Starting step: Fetch User Data")
    assert server.run(run_id)["status"] == "running"
    closed_upstream.open.set()
    live.wait_for("WebSocket disconnected")
    late = Console(browser, page)
    late.run(snippet)
    late.wait_for("WebSocket disconnected")

    events = [json.loads(text) for text in stored(server, run_id)]
    for console in (live, late):
        assert console.received == events
        assert console.lines == ["WebSocket connected", *as_printed(events), "WebSocket disconnected"]


def test_a_page_of_somebody_else_gets_nothing(browser, server, upstream):
    run_id = server.execute(WORKFLOW, apiUrl=upstream.url)
    stored(server, run_id)
    console = Console(browser, upstream.url)
    console.run(at(block("javascript", "new WebSocket"), server.port, run_id=run_id))
    console.wait_for("WebSocket disconnected")
    assert console.received == []
    assert "WebSocket connected" not in console.lines
