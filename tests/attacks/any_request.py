"""Requests made of our own OpenAPI document and of rubbish: every operation, every place, every kind of value.

Whatever is asked: no 5xx, one shape of refusal, and only answers that the document describes.
"""

import json
import random
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from tests.api.test_any_input import PIECES, WHOLE
from tests.api.test_openapi import assert_described, operation_of
from tests.attacks.watched import MIB, Size, attacked, faults_after
from tests.server import Answer, Server

GROWN_BYTES_MAX = 96 * MIB  # thousands of workflows and runs are made on the way, and lists of them cached
IDS = [
    "w",
    "r",
    "nobody",
    "%00",
    "..",
    "%2e%2e",
    ".",
    "a.b",
    "x" * 129,
    "runs",
    "%C3%A9",
    "%FF",
    "-",
    "0",
    "%2F",
    "*",
]
TEXTS = [
    "", "0", "1", "-1", "tail", "-2", "100", "1000", "1001", "9223372036854775807", "9223372036854775808", "1e9", "NaN",
    "all", "step_log", "step_log,run_start", "failed", "w", "r", "2020-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    "0000-00-00T00:00:00Z", "1ms", "5ms", "%00", "%ff", "\u00e9", "\U0001f680", "' OR 1=1 --", '"', "x" * 5_000, "control",
    "warn", "true", "null", "[]", "{{x}}", "+", " ", "%F0%28%8C%28", "1" * 400,
]  # fmt: skip
CONTENT_TYPES = [
    *["application/json"] * 12, "application/json; charset=utf-8", "application/json; charset=utf-16", "text/plain", "",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/msgpack", "application/json;;;",
    "application/problem+json", "APPLICATION/JSON", "a" * 3_000, "application/json, text/plain", "\xff",
]  # fmt: skip
ACCEPTS = [
    *["*/*"] * 6,
    "application/json",
    "application/x-ndjson",
    "text/event-stream",
    "text/html",
    "",
    "x",
    "*/*;q=0",
    "\xff",
]
NUMBERS = [
    0,
    -1,
    1,
    2**31,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63) - 1,
    10**30,
    1e308,
    5e-324,
    0.1,
    -0.0,
    10**4_000,
]
STRINGS = [
    "", "a", "true", "echo", "wait", "http", "command", "30s", "{{x}}", "{{a.b[0]}}", "{{secrets.X}}", "{{", "\0", "\u00e9",
    "\u2028", "\ud800", "x" * 70_000, "http://127.0.0.1:1/", "x > `1`", "a" * 129, "../../etc/passwd", "\x1b[2J",
]  # fmt: skip
KEYS = [
    "workflowId", "name", "description", "definition", "steps", "a", "id", "type", "config", "duration", "command", "args",
    "url", "dependsOn", "output", "when", "retry", "maxAttempts", "interval", "timeout", "variables", "runId", "reason",
    "onError", "", "__proto__", "\0", "x" * 300,
]  # fmt: skip


class Asker:
    """Makes requests; ``seed`` decides which."""

    def __init__(self, document: dict[str, Any], seed: int) -> None:
        self.chance = random.Random(seed)
        self.operations = [
            (method, path, operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        ]
        self.components = document["components"]

    def requests(self, count: int) -> Iterator[tuple[str, str, dict[str, str], bytes | None]]:
        """Yield method, path, headers and body of requests, each operation as often as every other."""
        for number in range(count):
            method, path, operation = self.operations[number % len(self.operations)]
            yield self._request(method, path, operation)

    def _request(
        self, method: str, path: str, operation: dict[str, Any]
    ) -> tuple[str, str, dict[str, str], bytes | None]:
        chance = self.chance
        headers = {"accept": chance.choice(ACCEPTS)}
        path = re.sub(r"{\w+}", lambda _: chance.choice(IDS[:3] if chance.random() < 0.7 else IDS), path)
        pairs = []
        for parameter in operation.get("parameters", ()):
            if "$ref" in parameter:
                parameter = self.components["parameters"][parameter["$ref"].rpartition("/")[2]]
            if parameter["in"] == "query" and chance.random() < 0.5:
                pairs.append((parameter["name"], self._text(parameter["name"])))
            elif parameter["in"] == "header" and chance.random() < 0.3:
                headers[parameter["name"]] = self._text(parameter["name"]).encode().decode("latin-1")[:2_000]
        if chance.random() < 0.15:
            pairs.append((chance.choice(KEYS), chance.choice(TEXTS)))
        if pairs:
            safe = chance.choice(["", "%", "%&=+'"])
            path += "?" + "&".join(f"{quote(name)}={quote(value, safe=safe)}" for name, value in pairs)
        if "wait=" not in path and path.partition("?")[0].endswith("/stream"):
            path = path.replace("/r/stream", "/nobody/stream")
        body = None
        if method in {"post", "put", "patch"} and chance.random() < 0.95 or chance.random() < 0.03:
            body = self._body()
            headers["content-type"] = chance.choice(CONTENT_TYPES)
        return method.upper(), path, headers, body

    def _text(self, name: str) -> str:
        if name == "wait":
            return self.chance.choice(["1ms", "0", "20ms", "x", "-1", "9" * 30, ""])
        return self.chance.choice(TEXTS)

    def _body(self) -> bytes:
        chance = self.chance
        match chance.randrange(8):
            case 0:
                depth = chance.choice([10, 500, 3_000, 100_000])
                return chance.choice([b"[", b'{"a":', b'{"steps":', b'{"variables":{"x":']) * depth
            case 1:
                return chance.randbytes(chance.randint(0, 200))
            case 2:
                return chance.choice(PIECES)
            case 3 | 4:
                return self._altered(json.dumps(WHOLE).encode())
            case _:
                text = json.dumps(self._value(5))
                return text.encode("utf-8", "surrogatepass")

    def _altered(self, body: bytes) -> bytes:
        altered = bytearray(body)
        for _ in range(self.chance.randint(1, 3)):
            start = self.chance.randrange(len(altered))
            altered[start : start + self.chance.randint(0, 12)] = self.chance.choice(PIECES)
        return bytes(altered)

    def _value(self, depth: int) -> Any:
        chance = self.chance
        kind = chance.randrange(8 if depth else 4)
        if kind == 0:
            return chance.choice([None, True, False, float("nan"), float("inf")])
        if kind == 1:
            return chance.choice(NUMBERS)
        if kind in {2, 3}:
            return chance.choice(STRINGS)
        if kind == 4:
            return [self._value(depth - 1) for _ in range(chance.randint(0, 4))]
        return {chance.choice(KEYS): self._value(depth - 1) for _ in range(chance.randint(0, 6))}


def run(count: int, seed: int) -> list[str]:
    """Make ``count`` requests; return the answers that are not ours."""
    with attacked(TAILRACE_COMMANDS="true,echo", TAILRACE_SECRET_X="none") as server:
        server.create("w", {"steps": {"a": {"type": "wait", "config": {"duration": 1}}}})
        assert server.post("/api/v2/workflows/w/execute", {"runId": "r"}).status == 202
        server.finished("r")
        document = server.get("/schema/openapi.json").json
        asker = Asker(document, seed)
        for _ in _faults(server, document, asker, 200):  # what the first hundreds need once: code, caches
            pass
        before = Size.of(server)
        faults = list(_faults(server, document, Asker(document, seed), count))
        return faults + faults_after(server, before, grown_bytes_max=GROWN_BYTES_MAX)


def _faults(server: Server, document: dict[str, Any], asker: Asker, count: int) -> Iterator[str]:
    for method, path, headers, body in asker.requests(count):
        sent = f"{method} {path[:300]} {headers} {(body or b'')[:300]!r}"
        try:
            answer = server.request(method, path, body, headers)
        except ValueError:
            continue  # http.client itself refuses to send it
        try:
            assert_ours(document, method, path, answer)
        except AssertionError as error:
            yield f"{sent} was answered with {answer}: {error}"


def assert_ours(document: dict[str, Any], method: str, path: str, answer: Answer) -> None:
    assert answer.status < 500 or (answer.status == 503 and "retry-after" in answer.headers)
    if answer.status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json
        assert {"type", "title", "status", "detail"} <= problem.keys()
        assert problem["status"] == answer.status
    plain = path.partition("?")[0]
    if answer.status not in {404, 405} and not {".", "%"} & set(plain):  # else the route may be another one
        try:
            operation_of(document, method, path)
        except KeyError:
            return  # a 405 to be, which the gate has refused for another reason before
        assert_described(document, method, path, answer)
