"""The OpenAPI document holds for what the service really answers: routes, statuses, bodies, headers."""

import re
from typing import Any

import pytest
from litestar import Litestar, Router

from service.api import PLAIN_ROUTES, PREFIX, ROUTES
from service.api.operations import OPERATIONS

W = "/api/v2/workflows"
BODY = {"steps": {"say": {"type": "command", "config": {"command": "echo", "args": ["hi"]}}}}
TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "null": type(None),
    "number": (int, float),
}  # fmt: skip


@pytest.fixture(scope="module")
def document(server):
    answer = server.get("/schema/openapi.json")
    assert answer.status == 200
    return answer.json


def wrong(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "") -> list[str]:
    """Return where ``value`` breaks ``schema``: the words of JSON Schema that our document uses."""
    if "$ref" in schema:
        target = root
        for key in schema["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        return wrong(value, target, root, at)
    if "anyOf" in schema:
        tried = [wrong(value, each, root, at) for each in schema["anyOf"]]
        return [] if [] in tried else [f"{at}: fits none of anyOf"]
    found = []
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(isinstance(value, TYPES[name]) for name in names):
            return [f"{at}: {value!r} is not {names}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: {value!r} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is none of {schema['enum']}")
    if isinstance(value, dict):
        found += [f"{at}: lacks {key}" for key in schema.get("required", ()) if key not in value]
        properties = schema.get("properties", {})
        # Every body of ours is closed, so that a field nobody described is found here.
        if properties and schema.get("title") not in {"Problem", "Definition"}:
            found += [f"{at}: {key} is not described" for key in value if key not in properties]
        for key, each in value.items():
            found += wrong(each, properties.get(key, {}), root, f"{at}/{key}")
    if isinstance(value, list):
        found += [
            each
            for n, item in enumerate(value)
            for each in wrong(item, schema.get("items", {}), root, f"{at}/{n}")
        ]
    return found


def operation_of(document, method: str, path: str) -> dict[str, Any]:
    """Return the operation that describes a request, the paths without parameters first."""
    bare = path.partition("?")[0]
    for template in sorted(document["paths"], key=lambda template: template.count("{")):
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), bare):
            return document["paths"][template][method.lower()]
    raise AssertionError(f"{path} is not described")


def assert_described(document, method: str, path: str, answer) -> None:
    described = operation_of(document, method, path)["responses"]
    assert str(answer.status) in described, (method, path, answer)
    response = described[str(answer.status)]
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
    for name in response.get("headers", {}):
        assert name.lower() in answer.headers, (method, path, name)
    content = response.get("content")
    if content is None:
        assert answer.body == b""
        return
    media_type = answer.headers["content-type"].partition(";")[0]
    assert media_type in content, (method, path, media_type)
    if media_type.endswith(("/json", "+json")):
        assert wrong(answer.json, content[media_type]["schema"], document) == [], (method, path)


def test_every_route_is_described_and_nothing_else(document):
    app = Litestar([Router(PREFIX, route_handlers=ROUTES), *PLAIN_ROUTES], openapi_config=None)
    # Parameters are called in the code as the code calls things: runId is run_id there.
    routes = {
        (method.lower(), re.sub(r"_(\w)", lambda found: found[1].upper(), re.sub(r":str}", "}", route.path)))
        for route in app.routes
        for method in route.methods - {"OPTIONS"}
    }
    described = {(method, path) for path, operations in document["paths"].items() for method in operations}
    assert described == routes | {("get", f"{W}/runs/{{runId}}/stream")}


def test_what_an_operation_needs_is_what_its_route_asks_for():
    by_path = {(route_path(route), method): route.opt["right"] for route in (*ROUTES, *PLAIN_ROUTES)
               for method in route.http_methods}  # fmt: skip
    for operation in OPERATIONS:
        place = operation.path.removeprefix(PREFIX), operation.method.upper()
        assert operation.right == by_path.get(place, "read"), operation.name


def route_path(route) -> str:
    (path,) = route.paths
    return re.sub(r"_(\w)", lambda found: found[1].upper(), path.replace(":str}", "}"))


def test_each_name_is_given_once_and_each_reference_leads_somewhere(document):
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))

    def references(node) -> list[str]:
        if isinstance(node, list):
            return [each for item in node for each in references(item)]
        if not isinstance(node, dict):
            return []
        return (
            [node["$ref"]]
            if "$ref" in node
            else [each for item in node.values() for each in references(item)]
        )

    for reference in references(document):
        target = document
        for key in reference.removeprefix("#/").split("/"):
            target = target[key]


@pytest.fixture(scope="module")
def run_id(server):
    server.create("described", BODY)
    run_id = server.execute("described")
    server.finished(run_id)
    return run_id


REQUESTS = [
    ("GET", "/health", None, 200),
    ("GET", "/ready", None, 200),
    ("GET", "/schema", None, 200),
    ("GET", "/schema/asyncapi.json", None, 200),
    ("GET", "/client.js", None, 200),
    ("GET", "/login", None, 200),
    ("GET", "/api/v2/session", None, 200),
    ("DELETE", "/api/v2/session", None, 204),
    ("POST", "/api/v2/session", {"key": "trk_0"}, 401),
    ("POST", "/api/v2/session", {}, 400),
    ("GET", "/api/v2/streams?limit=1", None, 200),
    ("POST", "/api/v2/stream-tickets", {"runId": "RUN"}, 201),
    ("POST", "/api/v2/stream-tickets", {"runId": "a b", "x": 1}, 400),
    ("GET", "/metrics", None, 200),
    ("POST", W, {"workflowId": "api", "definition": BODY}, 201),
    ("POST", W, {"workflowId": "api", "definition": BODY}, 200),
    ("POST", W, {"workflowId": "api", "definition": BODY, "name": "x"}, 409),
    ("POST", W, {"workflowId": "a b", "definition": 1}, 400),
    ("POST", W, {"definition": {"steps": {}, "name": "x" * 200_000}}, 413),
    ("POST", W, b"x" * 2_000_000, 413),
    ("PATCH", W, None, 405),
    ("GET", W, None, 200),
    ("GET", f"{W}?limit=0", None, 400),
    ("GET", f"{W}/api", None, 200),
    ("GET", f"{W}/nobody", None, 404),
    ("PUT", f"{W}/api", {"definition": BODY}, 200),
    ("PUT", f"{W}/nobody", {"definition": BODY}, 404),
    ("POST", f"{W}/validate", BODY, 200),
    ("POST", f"{W}/validate", {"steps": []}, 200),
    ("POST", f"{W}/api/execute", {"runId": "api-run"}, 202),
    ("POST", f"{W}/api/execute", {"runId": "api-run", "variables": {"x": 1}}, 409),
    ("POST", f"{W}/api/execute", b"x", 415),
    ("POST", f"{W}/nobody/execute", None, 404),
    ("GET", f"{W}/runs", None, 200),
    ("GET", f"{W}/api/runs?limit=1", None, 200),
    ("GET", f"{W}/runs/RUN", None, 200),
    ("GET", f"{W}/runs/nobody", None, 404),
    ("GET", f"{W}/runs/RUN/steps", None, 200),
    ("GET", f"{W}/runs/RUN/variables", None, 200),
    ("GET", f"{W}/runs/RUN/events?types=all", None, 200),
    ("GET", f"{W}/runs/RUN/events?after=999", None, 409),
    ("GET", f"{W}/runs/RUN/logs?level=info", None, 200),
    ("POST", f"{W}/runs/RUN/cancel", None, 409),
    ("GET", f"{W}/runs/RUN/stream", None, 200),
    ("GET", "/api/v2/events?limit=3", None, 200),
    ("GET", "/api/v2/events?cursor=999999999", None, 409),
    ("POST", "/api/v2/backups", None, 200),
    ("POST", "/api/v2/backups?cursor=999999999", None, 409),
    ("DELETE", f"{W}/api", None, 204),
    ("DELETE", f"{W}/api", None, 404),
]


def test_what_is_answered_is_what_is_described(server, document, run_id):
    for method, path, body, status in REQUESTS:
        headers = {"content-type": "text/plain" if body == b"x" else "application/json"} if body else {}
        path = path.replace("RUN", run_id)
        answer = server.request(method, path, body, headers)
        assert answer.status == status, (method, path, answer)
        if method != "PATCH":  # an unknown method has no operation; its problem is one of any operation
            assert_described(document, method, path, answer)


def test_what_may_be_held_may_be_throttled(document):
    """One user's requests that wait are bounded, as are one user's streams."""
    for path in ("events", "stream"):
        assert "429" in operation_of(document, "get", f"{W}/runs/x/{path}")["responses"]


def test_the_gate_s_problems_are_described(server, document):
    for headers, status in (({"host": "evil.example"}, 421), ({"origin": "null"}, 403)):
        answer = server.request("GET", W, headers=headers)
        assert answer.status == status
        assert_described(document, "GET", W, answer)


def test_both_forms_of_the_stream_and_the_download_are_described(server, document, run_id):
    path = f"{W}/runs/{run_id}/stream"
    answer = server.get(path, accept="text/event-stream")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert_described(document, "GET", path, answer)
    last_seq = server.run(run_id)["lastSeq"]
    answer = server.get(f"{path}?after={last_seq}", accept="text/event-stream")
    assert answer.status == 204
    assert_described(document, "GET", path, answer)
    answer = server.get("/api/v2/events", accept="application/x-ndjson")
    assert_described(document, "GET", "/api/v2/events", answer)


def test_the_page_shows_every_route_and_loads_nothing(server, document):
    answer = server.get("/schema")
    text = answer.body.decode()
    for path in document["paths"]:
        assert f"<code>{path}</code>" in text
    assert "``" not in text.partition("<h2>schemas")[0]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    text = text.replace('<link rel=icon href="data:,">', "")
    assert not re.findall(r"<script|<link|<img|src=|https?://|@import|url\(", text)
