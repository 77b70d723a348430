"""Refusals come before anything is accepted, with their real status, over both transports."""

import asyncio
import json

import pytest

from tests.wire.server import PREFIX, read_head, service, upgrade


@pytest.fixture(scope="module")
def running():
    with service() as running:
        asyncio.run(running.write_run(3))
        yield running


def ask(running, path: str, headers: str, method: str = "GET"):
    """Return status, headers and JSON body of an answer."""
    with running.connect() as client:
        client.sendall(f"{method} {PREFIX}{path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        return answer_of(client)


def answer_of(client):
    head = read_head(client).decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:-2])}
    body = b""
    while len(body) < int(headers.get("content-length", 0)):
        body += client.recv(65536)
    return int(head[0].split()[1]), headers, json.loads(body) if body else None


@pytest.fixture(params=["websocket", "text/event-stream", "application/x-ndjson"])
def refused(running, request):
    def ask_for(run_id: str, query: str = "", headers: str = ""):
        if request.param == "websocket":
            with upgrade(running, run_id, query, headers) as client:
                return answer_of(client)
        return ask(running, f"{run_id}/stream{query}", f"Accept: {request.param}\r\n{headers}")

    return ask_for


@pytest.mark.parametrize(
    ("run_id", "query", "headers", "status", "said"),
    [
        ("unknown", "", "", 404, "There is no run 'unknown'."),
        ("no.such.id", "", "", 404, "There is no run 'no.such.id'."),
        ("x" * 129, "", "", 404, "There is no run"),
        ("r", "?after=5", "", 409, "Run 'r' is at seq 4: there is no event 5 to continue after."),
        ("r", "?after=1", "Last-Event-ID: 99\r\n", 409, "Run 'r' is at seq 4"),
        ("r", "?after=x", "", 400, "must be a seq, tail, or -n"),
        ("r", "?after=1&after=2", "", 400, "is given twice"),
        ("r", "?since=1", "", 400, "is unknown; known are after"),
        ("r", "?level=loud", "", 400, "must be one of debug"),
        ("r", "?types=nonsense", "", 400, "'nonsense'"),
        ("r", "", "Last-Event-ID: x\r\n", 400, "must be a seq"),
        ("unknown", "?after=x", "", 400, "must be a seq, tail, or -n"),
    ],
)
def test_a_refusal_has_its_status_and_says_why(refused, run_id, query, headers, status, said):
    got, answered, problem = refused(run_id, query, headers)
    assert got == problem["status"] == status
    assert said in json.dumps(problem)
    assert answered["content-type"] == "application/problem+json"
    assert answered["vary"] == "accept"
    assert answered["cache-control"] == "no-store"


def test_a_cursor_above_the_head_is_told_the_head(refused):
    _, _, problem = refused("r", "?after=17")
    assert (problem["runId"], problem["lastSeq"], problem["after"]) == ("r", 4, 17)


def test_a_refused_websocket_is_not_reported_as_a_fault_of_ours(running, refused, caplog):
    refused("unknown")
    assert [r for r in caplog.records if r.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("Accept: application/json\r\n", None),
        ("Accept: text/event-stream;q=0\r\n", None),
        ("Accept: text/event-stream; q=0.000\r\n", None),
        ("Accept: text/event-streams\r\n", None),
        ("Accept: application/x-ndjson;q=0, */*\r\n", None),
        ("Accept: */*;q=0\r\n", None),
        ("Accept: \r\n", None),
        ("", "application/x-ndjson"),
        ("Accept: */*\r\n", "application/x-ndjson"),
        ("Accept: application/*;q=0.2\r\n", "application/x-ndjson"),
        ("Accept: Application/X-NDJSON\r\n", "application/x-ndjson"),
        ("Accept: text/event-stream;q=0, */*\r\n", "application/x-ndjson"),
        ("Accept: text/html, */*;q=0.8\r\n", "application/x-ndjson"),
        ("Accept: text/*\r\n", "text/event-stream"),
        ("Accept: text/event-stream\r\n", "text/event-stream"),
        ("Accept: TEXT/Event-Stream;charset=utf-8;q=0.1, */*;q=0.5\r\n", "text/event-stream"),
        ("Accept: application/json\r\nAccept: text/event-stream\r\n", "text/event-stream"),
    ],
)
def test_the_accept_header_chooses(running, accept, media_type):
    got, headers, problem = ask(running, "r/stream", accept)
    assert headers["vary"] == "accept"
    assert headers["cache-control"] == "no-store"
    if media_type is None:
        assert got == 406
        assert problem["offered"] == ["text/event-stream", "application/x-ndjson", "Upgrade: websocket"]
        assert "text/event-stream" in problem["detail"]
    else:
        assert (got, headers["content-type"]) == (200, media_type)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_another_method_is_refused(running, method):
    status, headers, _ = ask(
        running, "r/stream", "Accept: text/event-stream\r\nContent-Length: 0\r\n", method
    )
    assert (status, headers["allow"]) == (405, "GET")


async def test_a_service_that_shuts_down_refuses_503():
    with service() as running:
        await running.write_run(1, sealed=False)
        running.loop.call_soon_threadsafe(running.closing.set)
        await asyncio.sleep(0.05)
        with upgrade(running) as client:
            status, headers, problem = answer_of(client)
        assert (status, headers["retry-after"]) == (503, "1")
        assert problem["detail"] == "The service is shutting down."
        assert ask(running, "r/stream", "Accept: application/x-ndjson\r\n")[0] == 503


async def test_a_server_without_refusals_of_its_own_closes_before_accepting():
    with service() as running:
        await running.write_run(1)
        sent = []

        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "websocket",
            "path_params": {"run_id": "unknown"},
            "headers": [],
            "query_string": b"",
        }
        await running.do(running.endpoint(scope, receive, send))
        assert sent == [{"type": "websocket.close"}]
