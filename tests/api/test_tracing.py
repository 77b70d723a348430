"""A caller's trace, from its request through the run to what the steps ask, and in the diagnostics."""

import http.server
import json
import socket
import threading

import pytest

from service.domain.trace import child_of
from tests.server import Server

W = "/api/v2/workflows"
TRACE = "0af7651916cd43dd8448eb211c80319c"
GIVEN = f"00-{TRACE}-b7ad6b7169203331-01"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
PRINTING = {"command": "sh", "args": ["-c", "echo parent=$TRACEPARENT state=$TRACESTATE"]}


class Upstream(http.server.BaseHTTPRequestHandler):
    seen: list[dict[str, str]]
    answers: list[int]

    def do_GET(self):
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(self.answers.pop() if self.answers else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def upstream():
    Upstream.seen, Upstream.answers = [], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path, TAILRACE_HTTP_ALLOW="127.0.0.1") as running:
        yield running


def asking(upstream, **headers: str) -> dict:
    return {
        "type": "http",
        "config": {"url": f"http://127.0.0.1:{upstream.server_port}/", "headers": headers},
    }


def executed(server: Server, workflow: str, **headers: str) -> str:
    answer = server.post(f"{W}/{workflow}/execute", **headers)
    assert answer.status == 202, answer
    return answer.json["runId"]


def header_of(server: Server, run_id: str) -> dict:
    return server.get(f"{W}/runs/{run_id}/events?types=all&limit=1").json["data"][0]["payload"]


def said(server: Server, run_id: str, step: str) -> list[str]:
    lines = server.get(f"{W}/runs/{run_id}/logs?stepId={step}").json["data"]
    return [line["payload"]["message"] for line in lines if line["payload"]["message"].startswith("parent=")]


def test_a_trace_goes_from_the_request_to_what_the_steps_ask(server, upstream):
    steps = {
        "ask": {**asking(upstream), "retry": {"maxAttempts": 2, "interval": 1}},
        "own": {
            **asking(upstream, Traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-00"),
            "dependsOn": ["ask"],
        },
        "run": {"type": "command", "config": PRINTING},
        "set": {"type": "command", "config": PRINTING | {"env": {"TRACEPARENT": "mine"}}},
    }
    server.create("w", {"steps": steps})
    Upstream.answers = [500]
    run_id = executed(server, "w", traceparent=GIVEN, tracestate=STATE)
    assert server.finished(run_id)["status"] == "success"
    payload = header_of(server, run_id)
    assert (payload["traceparent"], payload["tracestate"]) == (GIVEN, STATE)
    seen = [(each.get("traceparent"), each.get("tracestate")) for each in Upstream.seen]
    assert seen == [
        (child_of(GIVEN, run_id, "ask", 1), STATE),
        (child_of(GIVEN, run_id, "ask", 2), STATE),
        ("00-" + "1" * 32 + "-" + "2" * 16 + "-00", None),
    ]
    assert said(server, run_id, "run") == [f"parent={child_of(GIVEN, run_id, 'run', 1)} state={STATE}"]
    assert said(server, run_id, "set") == ["parent=mine state="]


def test_without_a_valid_one_nothing_is_begun(server, upstream):
    server.create("w", {"steps": {"ask": asking(upstream), "run": {"type": "command", "config": PRINTING}}})
    for headers in ({}, {"traceparent": GIVEN.upper(), "tracestate": STATE}, {"tracestate": STATE}):
        run_id = executed(server, "w", **headers)
        assert server.finished(run_id)["status"] == "success"
        assert not {"traceparent", "tracestate"} & header_of(server, run_id).keys()
        assert said(server, run_id, "run") == ["parent= state="]
    assert not any("traceparent" in each or "tracestate" in each for each in Upstream.seen)


def test_a_repeated_request_is_the_same_one_whatever_its_trace(server, upstream):
    server.create("w", {"steps": {"ask": asking(upstream)}})
    first = executed(server, "w", traceparent=GIVEN, idempotency_key="k")
    again = executed(server, "w", traceparent=GIVEN.replace("b7ad", "b7ae"), idempotency_key="k")
    assert first == again
    assert header_of(server, first)["traceparent"] == GIVEN


def test_a_run_keeps_its_trace_over_a_crash(server, upstream):
    server.create("w", {"steps": {"nap": {"type": "wait", "config": {"duration": "1s"}}, "ask": {**asking(upstream), "dependsOn": ["nap"]}}})  # fmt: skip
    run_id = executed(server, "w", traceparent=GIVEN)
    server.kill_hard()
    assert Upstream.seen == []
    server.start()
    assert server.finished(run_id)["status"] == "success"
    assert [each["traceparent"] for each in Upstream.seen] == [child_of(GIVEN, run_id, "ask", 1)]


def test_a_request_on_the_same_connection_is_not_of_the_trace_before(server):
    of_trace = f"GET /health?1 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\ntraceparent: {GIVEN}\r\n\r\n"
    of_none = f"GET /ready HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall((of_trace + of_none).encode())  # the second waits for the end of the first
        while connection.recv(65_536):
            pass
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.diagnostics.read_text().splitlines()]
    *_, first, second = [line for line in lines if line["message"] == "request"]
    assert (first["path"], first.get("trace_id")) == ("/health", TRACE)
    assert (second["path"], second.get("trace_id")) == ("/ready", None)


def test_the_diagnostics_of_a_request_carry_its_trace_and_its_callers_id(server):
    server.get("/health", traceparent=GIVEN, **{"x-request-id": "abc-1.2_3"})
    server.get("/health", traceparent="00-" + "0" * 32, **{"x-request-id": 'a"b'})
    answer = server.get("/health", **{"x-request-id": "x" * 65, "host": "evil.example", "traceparent": GIVEN})
    assert answer.status == 421
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.diagnostics.read_text().splitlines()]
    traced, invalid, refused = [line for line in lines if line.get("path") == "/health"]
    assert (traced["trace_id"], traced["client_request_id"]) == (TRACE, "abc-1.2_3")
    assert not {"trace_id", "client_request_id"} & invalid.keys()
    assert (refused["trace_id"], refused["status"]) == (TRACE, 421)
    assert "client_request_id" not in refused
    assert len({line["request_id"] for line in (traced, invalid, refused)}) == 3
