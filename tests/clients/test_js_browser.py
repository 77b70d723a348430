"""The JavaScript client in a browser: from the service's own page, from one of somebody else, and where upgrades fail."""

import pytest

from tests.clients.between import NoUpgrades
from tests.clients.javascript import DEFINITION, HELD, SOURCE, texts
from tests.clients.test_js_client import ended, started
from tests.server import Server

QUEUED_CHARS_MAX = 4 * 1024 * 1024

# Watch as the page is told to; what happens is kept in `seen` for the test to look at.
WATCH = """async ([client, url, runId, options, hold]) => {
    const { watch } = await import(client);
    const seen = (window.seen = { events: [], sockets: 0, pauses: [], end: null, error: null });
    const closed = new Promise((resolve) => {
        options.WebSocket = class extends WebSocket {
            constructor(address, protocols) {
                super(address, protocols);
                seen.sockets += 1;
                this.addEventListener("close", resolve);
            }
        };
    });
    const run = watch(url, runId, { ...options, backoff: () => 0, onPause: (pause) => seen.pauses.push(pause) });
    try {
        for await (const event of run) {
            seen.events.push(event.raw);
            if (hold === run.received) await closed;
        }
        seen.end = run.end;
    } catch ({ name, message, code, status }) {
        seen.error = { name, message, code, status };
    }
}"""


def watched(page, url: str, run_id: str, *, client: str = "/client.js", hold: int = 0, **options) -> dict:
    """Return what a page has seen, once its watch is over."""
    page.evaluate(WATCH, [client, url, run_id, options, hold])
    return page.evaluate("window.seen")


both = pytest.mark.parametrize("transport", ["websocket", "sse"])


@both
def test_live_and_late(transport, page, hosted, closed_upstream):
    run_id = started(hosted, closed_upstream)
    page.goto(f"{hosted.url}/health")
    arguments = ["/client.js", "/", run_id, {"transport": transport}, 0]
    page.evaluate(f"(given) => {{ window.watching = ({WATCH})(given) }}", arguments)
    page.wait_for_function(
        "(text) => window.seen?.events.some((raw) => raw.includes(text))", arg=HELD.replace("\\", "")
    )
    assert hosted.run(run_id)["status"] == "running"
    closed_upstream.open.set()
    page.evaluate("window.watching")
    expected = texts(hosted, run_id)
    for seen in (page.evaluate("window.seen"), watched(page, hosted.url, run_id, transport=transport)):
        assert seen["events"] == expected
        assert seen["end"] == ended(hosted, run_id, len(expected))
        assert seen["pauses"] == []
        assert seen["sockets"] == (1 if transport == "websocket" else 0)


def test_a_run_that_nobody_knows(page, hosted):
    page.goto(f"{hosted.url}/health")
    for transport in ("websocket", "sse"):
        seen = watched(page, "/", "nobody-knows", transport=transport)
        said = {"name": "Refused", "message": "There is no run 'nobody-knows'.", "code": 4404, "status": 404}
        assert seen["error"] == said


def test_where_upgrades_are_refused(page, hosted, upstream):
    run_id = started(hosted, upstream)
    expected = texts(hosted, run_id)
    with NoUpgrades(hosted.port) as proxy:
        page.goto(f"{proxy.url}/health")
        seen = watched(page, proxy.url, run_id)
    assert seen["events"] == expected
    assert [pause["transport"] for pause in seen["pauses"]] == ["websocket", "websocket"]
    assert seen["sockets"] == 2


def test_a_slow_page_holds_no_more_than_its_bound(page, hosted, upstream):
    run_id = started(hosted, upstream, lines=12_000)
    hosted.finished(run_id, 120)
    expected = texts(hosted, run_id)
    assert sum(map(len, expected)) > QUEUED_CHARS_MAX
    page.goto(f"{hosted.url}/health")
    seen = watched(page, hosted.url, run_id, hold=1)
    assert seen["events"] == expected
    assert seen["end"]["received"] == len(expected)
    assert seen["sockets"] > 1
    assert seen["pauses"] == []


def test_a_page_of_somebody_else_is_told_why(page, hosted, upstream):
    run_id = started(hosted, upstream)
    page.goto(upstream.url)
    with pytest.raises(Exception, match="Failed to fetch dynamically imported module"):
        watched(page, hosted.url, run_id, client=f"{hosted.url}/client.js")
    blob = "(text) => URL.createObjectURL(new Blob([text], { type: 'text/javascript' }))"
    own = page.evaluate(blob, SOURCE.read_text())
    seen = watched(page, hosted.url, run_id, client=own)
    assert seen["events"] == []
    assert (seen["error"]["name"], seen["error"]["code"]) == ("Refused", 4403)
    origin = upstream.url.removesuffix("/posts/1")
    assert seen["error"]["message"] == f"The origin '{origin}' may not call us; TAILRACE_ORIGINS can name it."


def test_a_page_that_the_operator_has_named(page, tmp_path, upstream):
    origin = upstream.url.removesuffix("/posts/1")
    with Server(tmp_path, TAILRACE_HTTP_ALLOW="127.0.0.1", TAILRACE_ORIGINS=origin) as server:
        server.create("js", DEFINITION)
        run_id = started(server, upstream)
        expected = texts(server, run_id)
        # First from a page of the service: what the browser keeps from there must do for the other, too.
        page.goto(f"{server.url}/health")
        assert watched(page, server.url, run_id)["events"] == expected
        page.goto(upstream.url)
        for transport in ("websocket", "sse"):
            seen = watched(page, server.url, run_id, client=f"{server.url}/client.js", transport=transport)
            assert seen["events"] == expected
            assert seen["end"] == ended(server, run_id, len(expected))
            # Nothing is left to send: the browser has to read how the run ended from another address.
            seen = watched(
                page,
                server.url,
                run_id,
                transport=transport,
                client=f"{server.url}/client.js",
                after=len(expected),
            )
            assert seen["end"]["received"] == 0
