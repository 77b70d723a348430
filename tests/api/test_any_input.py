"""Whatever is sent, the answer is ours: no 5xx, and every refusal is a problem. Seeded: a failure can be repeated."""

import json
import random

import pytest

W = "/api/v2/workflows"
WHOLE = {
    "workflowId": "f",
    "definition": {
        "variables": {"x": 1},
        "steps": {
            "a": {
                "type": "command",
                "config": {"command": "true", "args": ["{{x}}"]},
                "output": {"y": "stdout"},
                "when": "x > `1`",
                "retry": {"maxAttempts": 2, "interval": "1s"},
            }
        },
    },
}
PIECES = [
    b"null", b"1e999", b"-1", b"9223372036854775808", b'""', b"[]", b"{}", b'"\\u0000"', b'"\\ud800"', b"\xff",
    b"{{", b"}}", b"true", b'"%b"' % (b"a" * 300), b"[" * 500, b'"{{a.b[0]}}"', b'"{{"', b'"\xc3\xa9"', b"\x00",
]  # fmt: skip
QUERY_PIECES = [
    "limit", "cursor", "since", "status", "after", "types", "runId", "type", "workflowId", "include", "=", "&",
    "%00", "%ff", "%25", "9" * 20, "-1", "tail", "all", "2020-01-01T00:00:00Z", "+", "'", "%22", "%F0%9F%9A%80",
]  # fmt: skip
LISTS = [W, f"{W}/runs", "/api/v2/events", f"{W}/runs/x/events", f"{W}/runs/x/logs", f"{W}/w/runs", f"{W}/w"]


@pytest.fixture(scope="module")
def server(server):
    server.create("w", {"steps": {"a": {"type": "wait", "config": {"duration": 1}}}})
    return server


def assert_ours(answer, *request: object) -> None:
    assert answer.status < 500, (request, answer)
    if answer.status >= 400:
        assert answer.headers["content-type"] == "application/problem+json", (request, answer)
        assert answer.json["status"] == answer.status


def test_any_body(server):
    chance = random.Random(20)
    whole = json.dumps(WHOLE).encode()
    for _ in range(600):
        body = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            start = chance.randrange(len(body))
            noise = bytes(chance.randrange(256) for _ in range(chance.randint(0, 6)))
            body[start : start + chance.randint(0, 12)] = chance.choice([noise, *PIECES])
        method, path = chance.choice(
            [("POST", W), ("POST", f"{W}/validate"), ("POST", f"{W}/w/execute"), ("POST", f"{W}/runs/x/cancel"),
             ("PUT", f"{W}/w")]
        )  # fmt: skip
        answer = server.request(method, path, bytes(body), {"content-type": "application/json"})
        assert_ours(answer, method, path, bytes(body))


def test_any_query(server):
    chance = random.Random(21)
    for _ in range(400):
        path = chance.choice(LISTS)
        query = "".join(chance.choice(QUERY_PIECES) for _ in range(chance.randint(1, 9)))
        assert_ours(server.get(f"{path}?{query}"), path, query)
