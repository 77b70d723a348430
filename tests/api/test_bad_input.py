"""What is wrong with a request is said all at once: the status, where each fault is, and what would be right."""

import json

import pytest

W = "/api/v2/workflows"
GOOD = {"steps": {"a": {"type": "wait", "config": {"duration": 1}}}}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(server):
    server.create("good", GOOD)
    return server


def faults(answer) -> list[tuple[str, str]]:
    assert answer.headers["content-type"] == "application/problem+json", answer
    problem = answer.json
    assert problem["status"] == answer.status
    assert {"type", "title", "detail"} <= problem.keys()
    return [(fault["pointer"], fault["message"]) for fault in problem.get("errors", [])]


def deep(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


NOT_JSON = [
    (b"{", "the body is not JSON"),
    (b"{} {}", "the body is not JSON"),
    (b"\xff\xfe", "the body is not JSON"),
    (b'{"a":"\xed\xa0\x80"}', "the body is not JSON"),
    (b'{"a":"\\ud800"}', "the body is not JSON"),
    (b'{"a":"\x00"}', "the body is not JSON"),
    (b'{"a":NaN}', "the body is not JSON"),
    (b'{"a":Infinity}', "the body is not JSON"),
    (b'{"a":1e400}', "the body is not JSON"),
    (b'{"a":' + b"9" * 5000 + b"}", "the body is not JSON"),
    (b"\x00", "the body is not JSON"),
    (b"\xef\xbb\xbf{}", "the body is not JSON"),
    (b"[1]", "the body must be a JSON object"),
    (b"null", "the body must be a JSON object"),
    (b'"text"', "the body must be a JSON object"),
    (deep(100_000), "the body is nested too deeply"),
]


@pytest.mark.parametrize("path", [W, f"{W}/validate", f"{W}/good/execute", f"{W}/runs/x/cancel"])
@pytest.mark.parametrize(("body", "message"), NOT_JSON, ids=range(len(NOT_JSON)))
def test_a_body_that_is_no_json_object(server, path, body, message):
    answer = server.request("POST", path, body, JSON)
    assert answer.status == 400, answer
    [(pointer, said)] = faults(answer)
    assert pointer == ""
    assert said.startswith(message)


STILL_JSON = [
    (deep(65), "/a" * 64, "is nested deeper than 64 levels"),
    (b'{"variables":{"x":18446744073709551616}}', "/variables/x", "does not fit into 64 bits"),
    (b'{"variables":{"x":[0,-9223372036854775809]}}', "/variables/x/1", "does not fit into 64 bits"),
]


@pytest.mark.parametrize(("body", "pointer", "message"), STILL_JSON)
def test_json_that_cannot_be_kept(server, body, pointer, message):
    [(where, said)] = faults(server.request("POST", f"{W}/good/execute", body, JSON))
    assert where == pointer
    assert message in said


def test_numbers_and_text_at_the_edge_are_kept(server):
    edge = {"big": 2**63, "biggest": 2**64 - 1, "least": -(2**63), "nul": "a\0b", "astral": "\U0001f680"}
    run = server.finished(server.execute("good", **edge))
    assert run["context"]["variables"] == edge


BODIES = [
    (W, {}, [("/definition", "is missing")]),
    (W, {"definition": None}, [("/definition", "must be an object")]),
    (W, {"definition": []}, [("/definition", "must be an object")]),
    (
        W,
        {"workflowId": "a b", "name": 1, "nam/e": 1, "definition": {"steps": {}, "colour": 1}},
        [
            ("/definition/colour", "unknown"),
            ("/definition/steps", ""),
            ("/name", "must be a text"),
            ("/nam~1e", "is unknown; known are workflowId, name, description, definition"),
            ("/workflowId", "must be 1 to 128 letters, digits, _ or -"),
        ],
    ),
    *[
        (W, {"workflowId": name, "definition": GOOD}, [("/workflowId", "is reserved")])
        for name in ("runs", "validate", "diff", "events")
    ],
    (W, {"workflowId": "x" * 129, "definition": GOOD}, [("/workflowId", "1 to 128")]),
    (W, {"workflowId": "", "definition": GOOD}, [("/workflowId", "1 to 128")]),
    (W, {"workflowId": "a\n", "definition": GOOD}, [("/workflowId", "1 to 128")]),
    (W, {"workflowId": 7, "definition": GOOD}, [("/workflowId", "1 to 128")]),
    (
        W,
        {"steps": {"a": {"type": "wait", "config": {"duration": "soon"}, "dependsOn": ["b"]}}},
        [("/steps/a/config/duration", ""), ("/steps/a/dependsOn/0", "")],
    ),
    (f"{W}/good/execute", {"variables": []}, [("/variables", "must be an object")]),
    (
        f"{W}/good/execute",
        {"variables": {"env": 1, "big": "x" * 65_536}, "runId": "a.b", "wait": True},
        [
            ("/runId", "must be 1 to 128"),
            ("/variables/big", "at most 65536"),
            ("/variables/env", "cannot be called"),
            ("/wait", "is unknown; known are variables, runId"),
        ],
    ),
    (f"{W}/good/execute", {"runId": "events"}, [("/runId", "is reserved")]),
    (f"{W}/runs/x/cancel", {"reason": 1, "force": 1}, [("/force", "unknown"), ("/reason", "a text")]),
]


@pytest.mark.parametrize(("path", "body", "expected"), BODIES, ids=range(len(BODIES)))
def test_every_fault_of_a_body(server, path, body, expected):
    answer = server.post(path, body)
    assert answer.status == 400, answer
    found = sorted(faults(answer))
    assert [pointer for pointer, _ in found] == [pointer for pointer, _ in expected]
    for (_, said), (_, message) in zip(found, expected, strict=True):
        assert message in said


QUERIES = [
    (f"{W}?limit=0", [("/query/limit", "from 1 to 1000")]),
    (f"{W}?limit=1001", [("/query/limit", "from 1 to 1000")]),
    (f"{W}?limit=9223372036854775808", [("/query/limit", "from 1 to 1000")]),
    (
        f"{W}?limit=ten&page=2",
        [("/query/limit", "from 1 to 1000"), ("/query/page", "known are limit, cursor")],
    ),
    (f"{W}?limit=1&limit=2", [("/query/limit", "is given twice")]),
    (f"{W}?cursor=%00", [("/query/cursor", "letters")]),
    (f"{W}?cursor=%ff", [("/query", "UTF-8")]),
    (f"{W}?" + "&".join(f"a{n}=1" for n in range(33)), [("/query", "at most 32")]),
    (f"{W}/good?x=1", [("/query/x", "takes none")]),
    (
        f"{W}/runs?status=done&since=yesterday&until=2026-01-01&workflowId=a.b&cursor=%21",
        [
            ("/query/cursor", "nextCursor"),
            ("/query/since", "RFC 3339"),
            ("/query/status", "one of queued, running, success, failed, cancelled"),
            ("/query/until", "RFC 3339"),
            ("/query/workflowId", "letters"),
        ],
    ),
    (f"{W}/good/runs?workflowId=good", [("/query/workflowId", "is unknown")]),
    (f"{W}/runs/x?full=1", [("/query/full", "takes none")]),
    (f"{W}/runs/x/steps?full=1", [("/query/full", "takes none")]),
    (f"{W}/runs/x/variables?full=1", [("/query/full", "takes none")]),
    (f"{W}/runs/x/events?after=x&kind=1", [("/query/after", "seq"), ("/query/kind", "known are")]),
    ("/api/v2/events?cursor=-1", [("/query/cursor", "cursor")]),
]


@pytest.mark.parametrize(("path", "expected"), QUERIES, ids=range(len(QUERIES)))
def test_every_fault_of_a_query(server, path, expected):
    answer = server.get(path)
    assert answer.status == 400, answer
    found = sorted(faults(answer))
    assert [pointer for pointer, _ in found] == [pointer for pointer, _ in expected]
    for (_, said), (_, message) in zip(found, expected, strict=True):
        assert message in said


@pytest.mark.parametrize("key", ["", "k" * 256, "a\tb"])
def test_a_bad_idempotency_key(server, key):
    answer = server.request("POST", f"{W}/good/execute", headers={"idempotency-key": key})
    assert (answer.status, faults(answer)[0][0]) == (400, "/headers/idempotency-key")


def test_a_key_and_a_run_id_together(server):
    answer = server.post(f"{W}/good/execute", {"runId": "mine"}, idempotency_key="k")
    assert (answer.status, faults(answer)) == (
        400,
        [("/runId", "cannot be given together with an Idempotency-Key")],
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{W}/nobody"),
        ("PUT", f"{W}/nobody"),
        ("DELETE", f"{W}/nobody"),
        ("POST", f"{W}/nobody/execute"),
        ("GET", f"{W}/diff"),
        ("GET", f"{W}/a.b"),
        ("GET", f"{W}/" + "x" * 129),
        ("GET", f"{W}/%00"),
        ("GET", f"{W}/runs/nobody"),
        ("GET", f"{W}/runs/a.b"),
        ("GET", f"{W}/runs/nobody/steps"),
        ("GET", f"{W}/runs/nobody/variables"),
        ("GET", f"{W}/runs/nobody/events"),
        ("GET", f"{W}/runs/nobody/logs"),
        ("POST", f"{W}/runs/nobody/cancel"),
        ("POST", f"{W}/runs/events/cancel"),
    ],
)
def test_nothing_of_that_name(server, method, path):
    answer = server.request(method, path, GOOD if method == "PUT" else None)
    assert answer.status == 404, answer
    assert faults(answer) == []


def test_a_definition_over_the_limit_is_413(server):
    wide = {"steps": {"a": {"type": "command", "config": {"command": "x", "args": ["y" * 196_608]}}}}
    for body in (wide, {"definition": wide}):
        answer = server.post(W, body)
        assert (answer.status, "196608" in answer.json["detail"]) == (413, True), answer


def test_definition_and_variables_together_over_the_limit_are_413(server):
    variables = dict.fromkeys("abcd", "x" * 65000)
    answer = server.post(f"{W}/good/execute", {"variables": variables, "runId": "too-large"})
    assert answer.status == 413, answer
    assert server.get(f"{W}/runs/too-large").status == 404


def of_bytes(size: int, own: dict) -> dict:
    """Return a definition of so many bytes, its ``own`` variables included; it does nothing."""
    step = {"type": "command", "when": "false", "config": {"command": "true", "args": [""]}}
    definition = ({"variables": own} if own else {}) | {"steps": {"a": step}}
    step["config"]["args"] = ["y" * (size - len(json.dumps(definition, separators=(",", ":"))))]
    return definition


@pytest.mark.parametrize("own", [{}, dict.fromkeys("abc", "x" * 60_000)], ids=["bare", "with variables"])
def test_what_can_be_created_can_be_executed_as_it_is(server, own):
    workflow_id = f"largest-{len(own)}"
    server.create(workflow_id, of_bytes(196_608, own))
    others = {name: text.swapcase() for name, text in own.items()}
    for body in ({}, {"variables": {}}, {"variables": others}):
        answer = server.post(f"{W}/{workflow_id}/execute", body)
        assert answer.status == 202, answer
        run = server.finished(answer.json["runId"])
        assert (run["status"], run["context"]["variables"]) == ("success", own | body.get("variables", {}))
    answer = server.post(f"{W}/{workflow_id}/execute", {"variables": {"n": 1}})
    assert (answer.status, "196608" in answer.json["detail"]) == (413, True), answer
    for path in (W, f"{W}/validate"):
        assert server.post(path, of_bytes(196_609, own)).status == 413


def test_a_flood_of_faults_is_told_in_part(server):
    answer = server.post(W, {f"k{n}": 0 for n in range(5000)})
    assert (answer.status, len(faults(answer))) == (400, 500)


def test_nothing_was_a_fault_of_ours(server):
    lines = [json.loads(line) for line in server.diagnostics.read_text().splitlines()]
    assert [line for line in lines if line["level"] == "error"] == []
