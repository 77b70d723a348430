"""What the service refuses reaches the client through nginx and HAProxy as the service said it."""

import http.client
import json
import time

import pytest
from websockets.exceptions import ConnectionClosed

from tests.proxies.ways import OverWebSocket, path_of

UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec_websocket_version": "13",
}
PLAIN = {"accept": "application/x-ndjson"}


@pytest.fixture(params=[UPGRADE, PLAIN], ids=["upgrade", "plain"])
def asked(proxy, request):
    """Ask for a stream in one of both ways; return the status and the problem."""

    def asked(path: str, **headers: str) -> tuple[int, dict]:
        answer = proxy.request("GET", path, **request.param | headers)
        assert answer.headers["content-type"] == "application/problem+json", answer
        assert answer.headers["x-request-id"]
        assert answer.json["status"] == answer.status
        return answer.status, answer.json

    return asked


def test_an_unknown_run(asked):
    assert asked(path_of("nobody")) == (404, {**problem(404), "detail": "There is no run 'nobody'."})


def test_a_cursor_above_the_head(asked, speaker):
    status, told = asked(path_of(speaker.id, after=99))
    assert (status, told["after"]) == (409, 99)


def test_an_unknown_parameter(asked, speaker):
    status, told = asked(path_of(speaker.id, aftr=1))
    assert (status, told["errors"][0]["pointer"]) == (400, "/query/aftr")


@pytest.mark.parametrize(
    ("run_id", "query", "code"),
    [
        ("nobody", {}, 4404),
        ("nobody", {"wait": "1ms"}, 4404),
        ("", {"after": 99}, 4409),
        ("", {"after": "x"}, 4400),
    ],
)
def test_a_web_page_is_told_by_the_close_code(proxy, speaker, run_id, query, code):
    with (
        OverWebSocket(proxy, run_id or speaker.id, errors="close", **query) as stream,
        pytest.raises(ConnectionClosed) as closed,
    ):
        stream.client.recv(60)
    assert closed.value.rcvd.code == code
    assert closed.value.rcvd.reason


def test_a_host_that_is_not_ours(asked, speaker):
    status, told = asked(path_of(speaker.id), host="rebound.example.net")
    assert status == 421
    assert "rebound.example.net" in told["detail"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://tailrace.example.org.evil.example"]
)
def test_a_web_page_of_somebody_else(asked, speaker, origin):
    assert asked(path_of(speaker.id), origin=origin)[0] == 403


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_web_page_of_ours(proxy, speaker, scheme):
    """The Host arrives as the browser named it, with the port, and so equals the Origin's."""
    origin = f"{scheme}://{proxy.authority}"
    for headers, status in ((PLAIN, 200), (UPGRADE, 101)):
        with proxy.sent("GET", path_of(speaker.id), origin=origin, **headers) as response:
            assert response.status == status


@pytest.mark.parametrize("authorization", ["", "Basic YWxpY2U6d3Jvbmc="])
def test_nothing_passes_without_a_password(server, proxy, authorization):
    for headers in (UPGRADE, PLAIN):
        answer = proxy.request("GET", path_of("unheard"), authorization=authorization, **headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
    answer = proxy.request("POST", "/api/v2/workflows/unheard/execute", authorization=authorization)
    assert answer.status == 401
    assert proxy.request("GET", path_of("heard")).status == 404
    deadline = time.monotonic() + 30
    while "/heard/" not in server.diagnostics.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "/unheard/" not in server.diagnostics.read_text()


def test_a_body_over_the_limit(proxy):
    body = b" " * (1024 * 1024 + 1)
    answer = proxy.request("POST", "/api/v2/workflows", body, content_type="application/json")
    assert (answer.status, answer.headers["content-type"]) == (413, "application/problem+json")
    assert "1048576" in answer.json["detail"]


def problem(status: int) -> dict:
    return {"type": "about:blank", "title": http.client.responses[status], "status": status}


def test_what_clients_say_about_themselves_changes_nothing(proxy, speaker):
    """Forged headers neither open the gate nor close it."""
    forged = {
        "x_forwarded_for": "127.0.0.1",
        "x_forwarded_host": "evil.example",
        "forwarded": "for=127.0.0.1;host=x",
    }
    answer = proxy.request("GET", f"/api/v2/workflows/runs/{speaker.id}", **forged)
    assert (answer.status, json.loads(answer.body)["runId"]) == (200, speaker.id)
