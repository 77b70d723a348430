"""Origins that are nearly ours, or nearly one that was named; and names that somebody else makes lead here."""

import re

import pytest
from playwright.sync_api import sync_playwright
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.clients.conftest import CHROMIUM, QUIET
from tests.server import Server

STREAM = "/api/v2/workflows/runs/nobody/stream"
OURS = "http://127.0.0.1:{port}"
HOSTILE = [
    "null", "", " ", "file://", "about:blank", "data:", "*", "{ours}/", "{ours}/x", "{ours}?", "{ours}#", "{ours}.",
    "{ours} ", "{ours},{ours}", "{ours} https://evil.example", "{ours}.evil.example", "{ours}@evil.example",
    "http://evil.example/{ours}", "http://user@127.0.0.1:{port}", "https://127.0.0.1:{port}.evil.example",
    "ws://127.0.0.1:{port}", "ftp://127.0.0.1:{port}", "chrome-extension://127.0.0.1:{port}", "//127.0.0.1:{port}",
    "127.0.0.1:{port}", "http:/127.0.0.1:{port}", "http:\\\\127.0.0.1:{port}", "http://127.0.0.1", "http://127.1:{port}",
    "http://2130706433:{port}", "http://0x7f000001:{port}", "http://0.0.0.0:{port}", "http://[::ffff:127.0.0.1]:{port}",
    "http://127.0.0.1:0{port}", "http://127.0.0.1:{port}0", "http://127.0.0.2:{port}", "http://localhost.:{port}",
    "http://sub.localhost:{port}", "http://127.0.0.1%2eevil.example:{port}", "http://127。0。0。1:{port}",
]  # fmt: skip
NAMED = "https://app.example"
NEAR = [
    "http://app.example", "https://app.example:443", "https://app.example:8443", "https://app.example.",
    "https://app.example/", "https://app.example.evil.example", "https://evilapp.example", "https://sub.app.example",
    "https://app-example", "https://app.exampl", "https://xapp.example", "https://app.example@evil.example",
    "https://evil.example#https://app.example", "https://app.example https://evil.example", "https://app%2eexample",
    "https://app.example,https://evil.example", "wss://app.example", "https:app.example", "https://аpp.example",
    "HTTPS://app.example", "https://APP.example",
]  # fmt: skip


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("named"), TAILRACE_ORIGINS=NAMED) as server:
        yield server


def refused(server, origin: str) -> tuple[int, int]:
    """Return the statuses of a request and of a WebSocket from a page of ``origin``."""
    text = origin.encode().decode("latin-1")
    answer = server.request("GET", "/api/v2/workflows", headers={"origin": text})
    assert "access-control-allow-origin" not in answer.headers
    preflight = server.request(
        "OPTIONS", "/api/v2/workflows", headers={"origin": text, "access-control-request-method": "POST"}
    )
    assert preflight.status == answer.status
    assert "access-control-allow-origin" not in preflight.headers
    with pytest.raises(InvalidStatus) as caught:
        connect(server.ws_url + STREAM, additional_headers={"Origin": text})
    return answer.status, caught.value.response.status_code


@pytest.mark.parametrize("origin", HOSTILE)
def test_nearly_our_own_origin_is_somebody_else_s(server, origin):
    filled = origin.replace("{ours}", OURS).replace("{port}", str(server.port))
    assert len(HOSTILE) >= 20
    # What HTTP itself trims, or does not allow in a header, may be refused before us.
    expected = {200, 403, 404} if filled.strip() == OURS.replace("{port}", str(server.port)) else {400, 403}
    assert set(refused(server, filled)) <= expected


@pytest.mark.parametrize("origin", NEAR)
def test_nearly_an_origin_that_was_named_is_none(named, origin):
    assert len(NEAR) >= 20
    assert set(refused(named, origin)) == {403}


def test_the_one_that_was_named_may(named):
    answer = named.request("GET", "/api/v2/workflows", headers={"origin": NAMED})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, NAMED)
    assert "access-control-allow-credentials" not in answer.headers
    preflight = named.request(
        "OPTIONS",
        "/api/v2/workflows",
        headers={"origin": NAMED, "access-control-request-method": "POST"},
    )
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-headers"].split(", ") == [
        "authorization", "content-type", "idempotency-key", "last-event-id", "traceparent", "tracestate",
        "x-request-id",
    ]  # fmt: skip


def test_a_name_that_is_made_to_lead_here_reaches_nothing(server):
    """DNS rebinding, in a browser: the page's own name resolves to us, so that we are its own origin."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", *QUIET, "--host-resolver-rules=MAP rebound.example 127.0.0.1"],
        )
        page = browser.new_page()
        answer = page.goto(f"http://rebound.example:{server.port}/health")
        assert answer is not None
        assert answer.status == 421
        ask = "(path) => fetch(path).then((answer) => answer.status)"
        assert page.evaluate(ask, "/api/v2/workflows") == 421
        post = """(path) => fetch(path, {method: "POST", headers: {"content-type": "application/json"}, body: "{}"})
            .then((answer) => answer.status)"""
        assert page.evaluate(post, "/api/v2/workflows") == 421
        opened = """(url) => new Promise((resolve) => {
            const socket = new WebSocket(url);
            socket.onopen = () => resolve("opened");
            socket.onclose = ({code}) => resolve(code);
        })"""
        assert page.evaluate(opened, f"ws://rebound.example:{server.port}{STREAM}?errors=close") != "opened"
        browser.close()


@pytest.mark.parametrize("path", ["/schema", "/login"])
def test_a_page_of_ours_runs_nothing_of_others_and_is_framed_by_nobody(server, path):
    answer = server.get(path)
    headers = answer.headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert re.search(rb'<meta name="?viewport"? content="width=device-width', answer.body), "for phones"
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
