"""Every client of a service that asks who they are: Python, the command line, wscat, Node, and pages of browsers."""

import json
import os

import pytest
from websockets.sync.client import connect

from service.client import Client, Refused
from tests.clients.client import PAGE_TIMEOUT_MS
from tests.clients.javascript import texts, watcher
from tests.clients.test_js_browser import WATCH, watched
from tests.server import Server

W = "/api/v2/workflows"
SAYS = {"steps": {"a": {"type": "command", "config": {"command": "seq", "args": ["50"]}}}}
LONG = {
    "steps": {"a": {"type": "command", "config": {"command": "sh", "args": ["-c", "echo hi; sleep 600"]}}}
}
both = pytest.mark.parametrize("transport", ["websocket", "sse"])


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Somebody else's web server: another service, whose pages are of another origin."""
    with Server(tmp_path_factory.mktemp("other")) as server:
        yield server


@pytest.fixture(scope="module")
def secured(tmp_path_factory, other):
    """A service with keys, and a run of ann's that is over. ``key`` is ann's."""
    server = Server(
        tmp_path_factory.mktemp("secured"), TAILRACE_ORIGINS=other.url, TAILRACE_DRAIN_TIMEOUT_S=0
    )
    server.key = server.create_key("root", "admin")
    with server:
        server.create("says", SAYS)
        server.create("long", LONG)
        server.key = server.create_key("ann", "read,run")
        server.run_id = server.execute("says")
        server.finished(server.run_id)
        yield server


async def test_python(secured):
    client = Client(secured.url, key=secured.key)
    watch = client.watch(secured.run_id, types="all")
    assert [event.data.decode() async for event in watch] == texts(secured, secured.run_id, "?types=all")
    assert watch.verified
    accepted = await client.execute("says")
    assert accepted["runId"]
    with pytest.raises(Refused, match="Credentials are needed") as refused:
        await Client(secured.url).get("/workflows")
    assert refused.value.status == 401
    with pytest.raises(Refused) as refused:
        async for _ in Client(secured.url, key="trk_wrong").watch(secured.run_id):
            pass
    assert refused.value.status == 401
    with pytest.raises(ValueError, match="no key has"):
        Client(secured.url, key="a\r\nb: c")


def test_the_command_line(secured, monkeypatch):
    server = ("--server", secured.url)
    monkeypatch.setenv("TAILRACE_KEY", secured.key)
    shown = secured.tailrace("watch", secured.run_id, *server, "-o", "json").stdout
    assert shown.splitlines() == texts(secured, secured.run_id)
    assert secured.run_id in secured.tailrace("ls", *server).stdout
    monkeypatch.delenv("TAILRACE_KEY")
    ended = secured.tailrace("watch", secured.run_id, *server, status=2)
    assert "Credentials are needed" in ended.stderr


def test_wscat(secured, client, wscat):
    url = f"{secured.ws_url}{W}/runs/{secured.run_id}/stream"
    env = {"PATH": f"{wscat}{os.pathsep}{os.environ['PATH']}"}
    started = client("wscat", "-H", f"Authorization: Bearer {secured.key}", "-c", url, env=env)
    printed = [line for line in started.ended() if line]
    assert printed == texts(secured, secured.run_id)


@both
def test_node(transport, secured, client, client_file):
    watch = watcher(client, client_file)
    seen = watch(secured.url, secured.run_id, transport, key=secured.key).ended()
    assert seen.events == texts(secured, secured.run_id)
    assert seen.end["status"] == "success"
    for key, status in ((None, 401), ("trk_wrong", 401)):
        failed = watch(
            secured.url, secured.run_id, transport, **({} if key is None else {"key": key})
        ).ended()
        assert (failed.error["name"], failed.error["status"]) == ("Refused", status), failed.error


@pytest.fixture
def page(browser):
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PAGE_TIMEOUT_MS)
    yield page
    context.close()


def log_in(page, secured, key: str) -> None:
    page.goto(f"{secured.url}/login")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Log in").click()


@both
def test_a_page_logs_in_once_and_then_needs_nothing(transport, page, secured):
    log_in(page, secured, secured.key)
    page.get_by_text("You are ann").wait_for()
    assert page.evaluate("document.cookie") == "", "no script can read it"
    page.goto(f"{secured.url}/health")
    seen = watched(page, "/", secured.run_id, transport=transport)
    assert seen["events"] == texts(secured, secured.run_id)
    count = """(url) => new Promise((resolve, reject) => {
        let n = 0;
        const source = new EventSource(url);
        source.onmessage = () => (n += 1);
        source.addEventListener("end", () => (source.close(), resolve(n)));
        source.onerror = reject;
    })"""
    assert page.evaluate(count, f"{W}/runs/{secured.run_id}/stream") == len(seen["events"])
    page.goto(f"{secured.url}/login")
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Key").wait_for()
    page.goto(f"{secured.url}/health")
    seen = watched(page, "/", secured.run_id, transport=transport)
    assert (seen["error"]["name"], seen["error"]["status"]) == ("Refused", 401)


def test_a_wrong_key_is_told_and_a_way_back_is_taken_within_the_house_only(page, secured, other):
    log_in(page, secured, "trk_wrong")
    page.get_by_role("alert").get_by_text("The key is not known").wait_for()
    page.goto(f"{secured.url}/login?next=/schema")
    page.get_by_label("Key").fill(secured.key)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{secured.url}/schema")
    page.context.clear_cookies()
    for elsewhere in (other.url, "//evil.example", "javascript:alert(1)", "\\\\evil.example"):
        page.goto(f"{secured.url}/login?next={elsewhere}")
        page.get_by_label("Key").fill(secured.key)
        page.get_by_role("button", name="Log in").click()
        page.get_by_text("You are ann").wait_for()
        assert page.url.startswith(f"{secured.url}/login")
        page.context.clear_cookies()


@both
def test_a_page_of_another_origin_shows_a_key_and_gets_tickets(transport, page, secured, other):
    page.goto(f"{other.url}/health")
    client = f"{secured.url}/client.js"
    seen = watched(page, secured.url, secured.run_id, client=client, transport=transport, key=secured.key)
    assert seen["events"] == texts(secured, secured.run_id)
    seen = watched(page, secured.url, secured.run_id, client=client, transport=transport)
    assert seen["error"]["status"] == 401


def test_a_page_of_another_origin_has_no_use_of_a_session(page, secured, other):
    log_in(page, secured, secured.key)
    page.get_by_text("You are ann").wait_for()
    page.goto(f"{other.url}/health")
    for way in (
        "(url) => fetch(url, {credentials: 'include'}).then((answer) => answer.text(), () => 'blocked')",
        "(url) => fetch(url, {credentials: 'include', mode: 'no-cors'}).then((answer) => answer.type)",
    ):
        assert page.evaluate(way, f"{secured.url}{W}/runs/{secured.run_id}") in {"blocked", "opaque"}
    said = [json.loads(line) for line in secured.diagnostics.read_text().splitlines()[-2:]]
    # Of another port, but of the same site: the browser does send the cookie.
    assert [line["status"] for line in said] == [401, 401]
    opened = """(url) => new Promise((resolve) => {
        const socket = new WebSocket(url);
        socket.onmessage = () => resolve("message");
        socket.onclose = ({code}) => resolve(code);
    })"""
    assert page.evaluate(opened, f"{secured.ws_url}{W}/runs/{secured.run_id}/stream?errors=close") in {
        4401,
        1006,
    }


def test_a_session_whose_key_is_revoked_ends_the_page_s_stream(page, secured):
    key = secured.create_key("ann", "read")
    run_id = secured.execute("long")
    log_in(page, secured, key)
    page.get_by_text("You are ann").wait_for()
    page.goto(f"{secured.url}/health")
    arguments = ["/client.js", "/", run_id, {"transport": "websocket"}, 0]
    page.evaluate(f"(given) => {{ window.watching = ({WATCH})(given) }}", arguments)
    page.wait_for_function("window.seen?.events.length >= 3")
    secured.revoke_keys(key)
    page.wait_for_function("window.seen.error", timeout=40_000)
    error = page.evaluate("window.seen.error")
    assert (error["name"], error["status"]) == ("Refused", 401)


def test_a_ticket_by_hand(secured):
    ticket = secured.post("/api/v2/stream-tickets", {"runId": secured.run_id}).json
    with connect(
        f"{secured.ws_url}{W}/runs/{secured.run_id}/stream", subprotocols=ticket["protocols"]
    ) as client:
        assert json.loads(client.recv())["type"] == "step_start"
