"""Who may call, with what: the same for HTTP and for WebSocket, before anything else is looked at."""

import json
import socket
import time

import pytest

from service.api.gate import Gate, own_authorities
from service.api.peers import Proxies
from service.ops.meters import RequestMeter
from tests.api.inside import open_to_all


def raw(server, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are and return status, headers and body of the (first) response."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


def http(path: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *headers, "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode() + body


UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def upgrade(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", *UPGRADE, *headers, "", ""]).encode()


STREAM = "/api/v2/workflows/runs/nobody/stream"
FOREIGN = [
    ("Host: evil.example", 421),
    ("Host: evil.example:{port}", 421),
    ("Host: localhost:1", 421),
    ("Host: localhost.evil.example:{port}", 421),
    ("Host: localhost", 421),
    ("Host: 127.0.0.1:{port}\r\nHost: 127.0.0.1:{port}", 400),
    ("X: y", 400),
    ("Host: 127.0.0.1:{port}\r\nOrigin: null", 403),
    ("Host: 127.0.0.1:{port}\r\nOrigin: http://evil.example", 403),
    ("Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:1", 403),
    ("Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}.evil.example", 403),
    ("Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\nOrigin: http://evil.example", 403),
    ("Host: 127.0.0.1:{port}\r\nOrigin:", 403),
]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(("headers", "status"), FOREIGN)
def test_a_stranger_is_refused(server, kind, headers, status):
    headers = headers.replace("{port}", str(server.port))
    request = http("/health", headers) if kind == "http" else upgrade(STREAM, headers)
    got, answered, body = raw(server, request)
    if "x-request-id" in answered:
        assert (got, answered["content-type"]) == (status, "application/problem+json"), body
        assert json.loads(body)["status"] == status
    else:  # the WebSocket parser came first
        assert (kind, got) == ("websocket", 400), body


@pytest.mark.parametrize(
    "headers",
    [
        "Host: 127.0.0.1:{port}",
        "Host: localhost:{port}",
        "Host: LOCALHOST:{port}",
        "Host: [::1]:{port}",
        "Host: localhost:{port}\r\nOrigin: http://localhost:{port}",
        "Host: localhost:{port}\r\nOrigin: http://127.0.0.1:{port}",
    ],
)
def test_our_own_names_are_let_through(server, headers):
    headers = headers.replace("{port}", str(server.port))
    assert raw(server, http("/health", headers))[0] == 200
    # The stream knows no such run; that it says so means that the gate let the WebSocket pass.
    status, answered, body = raw(server, upgrade(STREAM, headers))
    assert (status, answered["content-type"]) == (404, "application/problem+json"), body


def test_a_websocket_elsewhere_gets_a_real_404(server):
    for path in ("/", "/health", "/api/v2/workflows", "/api/v2/workflows/runs/x"):
        status, answered, body = raw(server, upgrade(path, f"Host: 127.0.0.1:{server.port}"))
        assert (status, answered["content-type"]) == (404, "application/problem+json"), body


VALIDATE = "/api/v2/workflows/validate"
BODY = b'{"steps":{"a":{"type":"wait","config":{"duration":1}}}}'


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ('application/json;charset="UTF-8"', 200),
        ("APPLICATION/JSON", 200),
        ("application/json; charset=utf-16", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
        (None, 415),
    ],
)
def test_a_body_must_be_json(server, content_type, status):
    headers = {} if content_type is None else {"content-type": content_type}
    assert server.request("POST", VALIDATE, BODY, headers).status == status


def test_a_chunked_body_is_checked_like_any_other(server):
    host = f"Host: 127.0.0.1:{server.port}"
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    for content_type, status in (("application/json", 200), ("text/plain", 415)):
        head = (host, "Transfer-Encoding: chunked", f"Content-Type: {content_type}")
        assert raw(server, http(VALIDATE, *head, method="POST", body=chunked))[0] == status


def test_a_body_over_the_limit_is_413(server):
    limit = 1024 * 1024
    assert server.request("POST", VALIDATE, b" " * (limit - len(BODY)) + BODY, JSON).status == 200
    answer = server.request("POST", VALIDATE, b" " * (limit + 1 - len(BODY)) + BODY, JSON)
    assert (answer.status, answer.json["title"]) == (413, "Request Entity Too Large")
    host = f"Host: 127.0.0.1:{server.port}"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    head = (host, "Transfer-Encoding: chunked", "Content-Type: application/json")
    assert raw(server, http(VALIDATE, *head, method="POST", body=chunk * 17 + b"0\r\n\r\n"))[0] == 413
    declared = (host, "Content-Length: 900000000", "Content-Type: application/json")
    assert raw(server, http(VALIDATE, *declared, method="POST"))[0] == 413  # at once, not a byte is awaited


JSON = {"content-type": "application/json"}


def test_head_is_the_head_of_get(server):
    get, head = server.get("/health"), server.request("HEAD", "/health")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(get.body))
    assert server.request("HEAD", "/nowhere").status == 404
    answer = server.request("HEAD", STREAM, headers={"accept": "text/event-stream"})
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


def test_another_method_is_405_with_what_is_allowed(server):
    answer = server.request("DELETE", "/api/v2/workflows")
    assert (answer.status, answer.json["title"]) == (405, "Method Not Allowed")
    assert set(answer.headers["allow"].split(", ")) >= {"GET", "HEAD", "POST"}
    answer = server.request("GET", VALIDATE)
    assert (answer.status, answer.headers["allow"]) == (405, "OPTIONS, POST")
    assert server.request("POST", STREAM).headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (VALIDATE, "OPTIONS, POST"),
        ("/api/v2/workflows", "GET, HEAD, OPTIONS, POST"),
        ("/api/v2/workflows/w1", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("/api/v2/workflows/w1/execute", "OPTIONS, POST"),
        ("/health", "GET, HEAD, OPTIONS"),
    ],
)
def test_options_tells_what_is_allowed(server, path, allowed):
    answer = server.request("OPTIONS", path)
    assert (answer.status, answer.body, answer.headers["allow"]) == (204, b"", allowed), answer
    assert server.request("PATCH", path).headers["allow"] == allowed


def test_options_of_what_is_not_there_is_404(server):
    assert server.request("OPTIONS", "/nowhere").status == 404
    answer = server.request("OPTIONS", STREAM)
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


def test_an_unknown_path_is_404(server):
    for path in ("/", "/api/v2", "/api/v1/workflows", "/api/v2/workflows/a/b", "/api/v2/workflows/%2e%2e"):
        answer = server.get(path)
        assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json"), path


def test_every_answer_has_its_own_id(server):
    answers = [server.get("/health"), server.get("/nowhere"), server.get("/health", host="evil.example")]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 3
    deadline = time.monotonic() + 5  # the line is written after the answer
    while missing := [each for each in ids if each not in server.diagnostics.read_text()]:
        assert time.monotonic() < deadline, missing
    assert "server" not in answers[0].headers


# What needs other settings is asked of the gate itself.


async def ask(gate: Gate, *headers: tuple[str, str], method: str = "GET") -> tuple[int, dict[str, str]]:
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    raw_headers = [(name.encode(), value.encode()) for name, value in headers]
    await gate({"type": "http", "method": method, "path": "/", "headers": raw_headers}, receive, send)
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


async def inside(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def gate(**options) -> Gate:
    options = {
        "credentials": open_to_all(),
        "proxies": Proxies(),
        "meter": RequestMeter(),
    } | options
    return Gate(inside, authorities=own_authorities("10.0.0.5", 8080), body_bytes_max=100, **options)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("10.0.0.5:8080", 200),
        ("localhost:8080", 200),
        ("tail.example", 200),
        ("tail.example:443", 200),
        ("other.example:99", 200),
        ("other.example:98", 421),
        ("evil.tail.example", 421),
        ("tail.example.", 421),
    ],
)
async def test_further_hosts_can_be_named(host, status):
    assert (await ask(gate(hosts=("tail.example", "other.example:99")), ("host", host)))[0] == status


async def test_an_origin_that_was_named_may_read_the_answers():
    door = gate(origins=("https://ops.example",))
    ours = ("host", "localhost:8080")
    status, headers = await ask(door, ours, ("origin", "https://ops.example"))
    assert (status, headers["access-control-allow-origin"]) == (200, "https://ops.example")
    status, headers = await ask(door, ours)
    assert (status, "access-control-allow-origin" in headers) == (200, False)
    status, headers = await ask(
        door,
        ours,
        ("origin", "https://ops.example"),
        ("access-control-request-method", "POST"),
        method="OPTIONS",
    )
    assert (status, "POST" in headers["access-control-allow-methods"]) == (204, True)
    assert (await ask(door, ours, ("origin", "https://opsx.example")))[0] == 403


def test_a_wildcard_is_no_name_of_ours():
    assert own_authorities("0.0.0.0", 80) == own_authorities("", 80)
    assert "localhost" in own_authorities("", 80)
    assert own_authorities("::", 8080) == {"localhost:8080", "127.0.0.1:8080", "[::1]:8080"}
