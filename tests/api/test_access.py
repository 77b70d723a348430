"""Who may do what, on the real service: every route, every kind of credential, HTTP and WebSocket, and tricks."""

import base64
import http.client
import json
from urllib.parse import quote

import jwt
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from service.api import PLAIN_ROUTES, PREFIX, ROUTES, public_paths
from service.api.operations import OPERATIONS
from tests.api.secured import BODY, LONG, SECRET, House, W, logged_in, token


def paths(house: House):
    """Yield each operation with an address that exists."""
    for operation in OPERATIONS:
        path = operation.path.replace("{workflowId}", "short").replace("{runId}", house.run)
        yield operation, path


BODIES = {
    "create_workflow": {"workflowId": "x", "definition": BODY},
    "validate_workflow": BODY,
    "replace_workflow": {"definition": BODY},
    "issue_ticket": {"runId": "r"},
    "log_in": {"key": "trk_nobody"},
}
WORTH_NOTHING = [
    None,
    "revoked",
    "trk_0000000000000000_" + "A" * 43,
    "nonsense",
    token("ann", lifetime_s=-60),
    jwt.encode({"sub": "ann", "scope": "admin"}, SECRET, "HS256"),
    jwt.encode({"sub": "ann", "scope": "admin"}, None, "none"),
]


@pytest.mark.parametrize("who", WORTH_NOTHING)
def test_without_a_credential_that_is_worth_something_only_public_routes_answer(house, who):
    for operation, path in paths(house):
        answer = house.ask(operation.method.upper(), path, who, BODIES.get(operation.name))
        if operation.right == "public" and operation.name != "log_in":
            assert answer.status == 200, (operation.name, answer)
            continue
        assert answer.status == 401, (operation.name, answer)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert house.socket(f"{W}/runs/{house.run}/stream", who) == 401
    assert house.socket(f"{W}/runs/{house.run}/stream?errors=close", who) == 4401


def test_a_right_is_needed_and_named(house):
    may = {
        "admin": {"read", "run", "write", "metrics", "admin"}, "reader": {"read"}, "writer": {"write"},
        "metrics": {"metrics"}, token("ann", "run"): {"run"}, token("ann", ""): set(),
    }  # fmt: skip
    for who, rights in may.items():
        for operation, path in paths(house):
            if operation.right in {"public", "any"} or operation.name in {"delete_workflow", "cancel"}:
                continue
            answer = house.ask(operation.method.upper(), path, who, BODIES.get(operation.name))
            if operation.right in rights:
                known = operation.name == "audit" and who != "admin"
                assert answer.status < 400 or (known and answer.status == 403), (who, operation.name, answer)
            else:
                assert (answer.status, answer.json["right"]) == (403, operation.right), (who, operation.name)
                assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
        expected = 1000 if "read" in rights else 403
        assert house.socket(f"{W}/runs/{house.run}/stream", who) == expected, who


def test_who_may_not_cancels_nothing_and_deletes_nothing(house):
    cancel, delete = ("POST", f"{W}/runs/{house.going}/cancel"), ("DELETE", f"{W}/short")
    before = ended_or_deleted(house)
    for who, of_cancel, of_delete in (
        (None, 401, 401), ("reader", 403, 403), (token("ann", "read"), 403, 403), ("metrics", 403, 403),
        ("bob", 404, 403), (token("bob", "run"), 404, 403), ("ann", None, 403), ("writer", 403, None),
        (token("bob", "run write"), 404, None),
    ):  # fmt: skip
        if of_cancel is not None:
            assert house.ask(*cancel, who).status == of_cancel, who
        if of_delete is not None:
            assert house.ask(*delete, who).status == of_delete, who
    assert ended_or_deleted(house) == before
    assert house.ask("GET", f"{W}/runs/{house.going}", "ann").json["status"] == "running"
    assert house.ask("GET", f"{W}/short", "reader").status == 200
    # Who may, does: what was refused above was not refused for another reason.
    house.ask("POST", W, "writer", {"workflowId": "doomed", "definition": LONG})
    doomed = house.ask("POST", f"{W}/doomed/execute", token("dan")).json["runId"]
    assert house.ask("DELETE", f"{W}/doomed", "writer").status == 204
    assert house.ask("POST", f"{W}/runs/{doomed}/cancel", token("dan")).status == 202
    assert len(ended_or_deleted(house)) == len(before) + 2


def ended_or_deleted(house: House) -> list[str]:
    """Return the wishes to cancel a run, and the definitions that were deleted, from the whole log."""
    log = house.ask("GET", "/api/v2/events?include=control", "admin", accept="application/x-ndjson")
    assert log.status == 200, log
    events = [json.loads(line)["event"] for line in log.body.splitlines()]
    return [event["type"] for event in events if event["type"] in {"cancel_requested", "workflow_deleted"}]


OF_A_RUN = [
    ("GET", ""), ("GET", "/steps"), ("GET", "/variables"), ("GET", "/events"), ("GET", "/logs"),
    ("GET", "/events?after=999"), ("GET", "/stream"), ("GET", "/stream?after=999"), ("POST", "/cancel"),
]  # fmt: skip


def test_a_run_of_somebody_else_is_not_there(house):
    for method, rest in OF_A_RUN:
        theirs = house.ask(method, f"{W}/runs/{house.run}{rest}", "bob")
        nobodys = house.ask(method, f"{W}/runs/nobody{rest}", "bob")
        assert theirs.status == nobodys.status == 404, (rest, theirs)
        assert theirs.json["detail"].replace(house.run, "") == nobodys.json["detail"].replace("nobody", "")
        mine = house.ask(method, f"{W}/runs/{house.run}{rest}", "reader" if method == "GET" else "ann")
        assert mine.status in {200, 409}, (rest, mine)
    assert house.socket(f"{W}/runs/{house.run}/stream", "bob") == 404
    assert house.socket(f"{W}/runs/{house.run}/stream?wait=100", "bob") == 4404
    assert house.socket(f"{W}/runs/{house.run}/stream", "ann") == 1000
    assert house.socket(f"{W}/runs/{house.run}/stream", token("ann")) == 1000, "the same person"


@pytest.mark.parametrize(
    "exp", [1e300, 10**400, 253_402_300_800, float("inf")], ids=["1e300", "10**400", "10000", "inf"]
)
def test_a_token_whose_end_no_calendar_has_is_refused_everywhere(house, exp):
    claims = {"iss": "https://id.example", "aud": "tailrace", "sub": "ann", "scope": "read", "exp": exp}
    wrong = jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, "HS256")
    assert house.ask("GET", "/api/v2/session", wrong).status == 401
    assert house.ask("POST", "/api/v2/session", None, {"key": wrong}).status == 401
    assert house.socket(f"{W}/runs/{house.run}/stream", wrong) == 401


@pytest.mark.parametrize(
    "name", ["auth0|5f7c", "repo:org/app:ref:refs/heads/main", "https://id.example/u?a=b&c", "Änne B"]
)
def test_a_user_of_a_provider_s_naming_has_runs_streams_and_sessions_of_their_own(house, name):
    mine, other = token(name), token(name + "x")
    run = house.ask("POST", f"{W}/long/execute", mine, **{"idempotency-key": "one"}).json["runId"]
    assert house.ask("POST", f"{W}/long/execute", mine, **{"idempotency-key": "one"}).json["runId"] == run
    assert [
        (each["runId"], each["startedBy"]) for each in house.ask("GET", f"{W}/runs", mine).json["data"]
    ] == [(run, name)]
    assert house.ask("GET", f"{W}/runs", other).json["data"] == []
    assert house.ask("GET", f"{W}/runs/{run}", other).status == 404
    headers = {"Authorization": f"Bearer {mine}"}
    with connect(f"{house.server.ws_url}{W}/runs/{run}/stream", additional_headers=headers):
        streams = house.ask("GET", "/api/v2/streams", mine).json["data"]
        assert [(stream["user"], stream["runId"]) for stream in streams] == [(name, run)]
    cookie = logged_in(house, mine)
    assert house.ask("GET", "/api/v2/session", None, cookie=cookie).json["name"] == name
    assert house.ask("POST", f"{W}/runs/{run}/cancel", None, cookie=cookie).status == 202
    assert house.ask("DELETE", "/api/v2/session", None, cookie=cookie).status == 204
    assert house.ask("GET", "/api/v2/session", None, cookie=cookie).status == 401
    said = house.ask("GET", f"/api/v2/events?runId={run}&include=control", mine).json["data"]
    assert {by_of(event["payload"]) for event in said} >= {name}
    assert house.ask("DELETE", f"{W}/short", mine).json["detail"] == f"{name!r} lacks the right 'write'."


def test_lists_hold_one_s_own(house):
    theirs = house.ask("GET", f"{W}/runs", "bob").json["data"]
    mine = house.ask("GET", f"{W}/runs", "ann").json["data"]
    everybodys = house.ask("GET", f"{W}/runs", "admin").json["data"]
    assert theirs == []
    assert {run["runId"] for run in mine} >= {house.run, house.going}
    assert {run["startedBy"] for run in everybodys} >= {"ann"}
    assert house.ask("GET", f"{W}/short/runs", "bob").json["data"] == []
    assert house.ask("GET", "/api/v2/events", "ann").status == 403
    assert house.ask("GET", f"/api/v2/events?runId={house.run}", "bob").status == 404
    assert house.ask("GET", f"/api/v2/events?runId={house.run}", "ann").json["data"]


def test_a_run_id_that_somebody_else_chose_is_taken(house):
    body = {"runId": "chosen"}
    assert house.ask("POST", f"{W}/short/execute", "ann", body).status == 202
    assert house.ask("POST", f"{W}/short/execute", "ann", body).status == 202
    assert house.ask("POST", f"{W}/short/execute", "bob", body).status == 409
    mine = house.ask("POST", f"{W}/short/execute", "ann", **{"idempotency-key": "k"}).json["runId"]
    theirs = house.ask("POST", f"{W}/short/execute", "bob", **{"idempotency-key": "k"}).json["runId"]
    assert mine != theirs


def test_the_log_says_who_did_what(house):
    house.ask("POST", f"{W}/runs/{house.going}/cancel", "ann")
    house.server.key = house.keys["admin"]
    house.server.finished(house.going)
    house.server.create("passing", BODY)
    house.server.key = None
    assert house.ask("DELETE", f"{W}/passing", "writer").status == 204
    events = house.ask("GET", "/api/v2/events?include=control&limit=1000", "admin").json["data"]
    said = {(event["type"], by_of(event["payload"])) for event in events}
    assert {
        ("workflow_created", "root"), ("run_start", "ann"), ("cancel_requested", "ann"),
        ("run_complete", "ann"), ("workflow_deleted", "writer"),
    } <= said  # fmt: skip
    house.going = house.ask("POST", f"{W}/long/execute", "ann").json["runId"]


def by_of(payload):
    return payload.get("by") or payload.get("trigger", {}).get("by")


TRICKS = [
    "//{}", "/./{}", "/x/../{}", "/%2e/{}", "/x/%2e%2e/{}", "/{}/", "/{}//", "/{}%00", "/{}%20", "/{};x=1",
    "/{}?x=/health", "/health/../{}", "/health/%2e%2e/{}", "/health%2f..%2f{}", "/schema/..;/{}",
    "/login/../{}", "/{}#/health", "/%61pi/v2/../..//health/../{}", "/HEALTH/../{}", "http://x/health/../{}",
]  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_no_spelling_of_a_path_gets_past_the_gate(house, trick):
    for target in (
        "api/v2/workflows",
        f"api/v2/workflows/runs/{house.run}",
        "api/v2/events",
        "api/v2/streams",
    ):
        for spelled in (trick.format(target), trick.format(quote(target, safe="").lower())):
            connection = http.client.HTTPConnection("127.0.0.1", house.server.port, timeout=10)
            try:
                connection.putrequest("GET", spelled, skip_host=False, skip_accept_encoding=True)
                connection.endheaders()
                answer = connection.getresponse()
                body = answer.read()
            finally:
                connection.close()
            assert answer.status in {400, 401, 404, 421}, (spelled, answer.status, body)
            assert house.run.encode() not in body.replace(spelled.encode(), b"")


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "get", "GET /health"])
def test_no_method_gets_past_the_gate(house, method):
    connection = http.client.HTTPConnection("127.0.0.1", house.server.port, timeout=10)
    connection._method = method
    try:
        connection.sock = None
        connection.connect()
        connection.sock.sendall(
            f"{method} {W} HTTP/1.1\r\nHost: 127.0.0.1:{house.server.port}\r\nConnection: close\r\n\r\n".encode()
        )
        first = connection.sock.makefile("rb").readline()
    finally:
        connection.close()
    assert int(first.split()[1]) in {400, 401, 404, 405}, first


HEADERS = [
    {"authorization": ""}, {"authorization": "Bearer"}, {"authorization": "Bearer "}, {"authorization": "Basic {b}"},
    {"authorization": "Token {k}"}, {"authorization": "Bearer {k}, Bearer {k}"}, {"authorization": "{k}"},
    {"authorization": "Bearer {k} x"}, {"x-authorization": "Bearer {k}"}, {"proxy-authorization": "Bearer {k}"},
    {"cookie": "tailrace_session={k}"}, {"cookie": "tailrace_session={s}; tailrace_session={s}"},
    {"cookie": "__Host-tailrace_session={s}"}, {"x-forwarded-for": "127.0.0.1"}, {"x-original-url": "/health"},
    {"x-rewrite-url": "/health"}, {"x-http-method-override": "GET"}, {"x-forwarded-user": "root"},
]  # fmt: skip


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: json.dumps(headers))
def test_no_other_header_is_a_credential(house, headers):
    key = house.keys["admin"]
    session = logged_in(house, "admin").partition("=")[2]
    basic = base64.b64encode(f"root:{key}".encode()).decode()
    filled = {name: value.format(k=key, s=session, b=basic) for name, value in headers.items()}
    assert house.ask("GET", W, None, **filled).status == 401


def test_a_key_in_the_address_is_refused_and_in_no_line_of_diagnostics(house):
    key = house.keys["admin"]
    for name in ("key", "token", "access_token", "authorization"):
        assert house.ask("GET", f"{W}?{name}={key}", None).status == 401
        assert house.ask("GET", f"{W}?{name}={key}", "admin").status == 400
        assert house.socket(f"{W}/runs/{house.run}/stream?{name}={key}") == 401
    session = logged_in(house, "ann").partition("=")[2]
    for credential in (key, session, token("ann")):
        house.ask("GET", f"{W}/{credential}", "admin")
        house.ask("GET", f"{W}/{quote(credential, safe='').replace('_', '%5F')}", None)
        house.socket(f"{W}/runs/{credential}/stream", "ann")
        assert credential.rpartition(".")[2] not in house.server.diagnostics.read_text()
    text = house.server.diagnostics.read_text()
    assert '"status": 401' in text
    for secret in (*house.keys.values(), SECRET):
        assert secret not in text
        assert secret.split("_", 2)[-1] not in text  # what is random of a key, which may have more of these


def test_a_ticket_opens_one_stream_of_its_run_once(house):
    def ticket() -> list[str]:
        answer = house.ask("POST", "/api/v2/stream-tickets", "reader", {"runId": house.run})
        assert answer.status == 201, answer
        return answer.json["protocols"]

    stream = f"{W}/runs/{house.run}/stream"
    protocols = ticket()
    with connect(house.server.ws_url + stream, subprotocols=protocols) as client:
        assert client.subprotocol == "tailrace.v2", "the ticket is not echoed"
        assert len(list(client)) == 3
    assert house.socket(stream, subprotocols=protocols) == 401, "used"
    url = f"{house.server.ws_url}{stream}?errors=close"
    with connect(url, subprotocols=protocols) as client:
        assert client.subprotocol == "tailrace.v2", "a browser would not show the code otherwise"
        with pytest.raises(ConnectionClosedError) as closed:
            client.recv()
    assert closed.value.rcvd.code == 4401
    protocols = ticket()
    assert house.socket(f"{W}/runs/{house.going}/stream", subprotocols=protocols) == 401, "another run"
    assert house.socket(stream, subprotocols=protocols) == 401, "used up by trying"
    assert house.socket(stream, subprotocols=[*ticket(), ticket()[1]]) == 401, "two of them"
    answer = house.ask("GET", stream, None, **{"sec-websocket-protocol": ", ".join(ticket())})
    assert answer.status == 401, "only for a WebSocket"
    assert house.ask("POST", "/api/v2/stream-tickets", "writer", {"runId": house.run}).status == 403


def test_a_ticket_of_a_key_that_was_revoked_is_worth_nothing(house):
    key = house.server.create_key("ann", "read")
    protocols = house.ask("POST", "/api/v2/stream-tickets", key, {"runId": house.run}).json["protocols"]
    house.server.revoke_keys(key)
    assert house.socket(f"{W}/runs/{house.run}/stream", subprotocols=protocols) == 401
    assert house.ask("GET", W, key).status == 401


def test_every_route_says_what_it_needs():
    assert [route for route in (*ROUTES, *PLAIN_ROUTES) if "right" not in route.opt] == []
    assert public_paths() == {
        ("GET", "/health"), ("GET", "/ready"), ("GET", "/schema"), ("GET", "/schema/openapi.json"),
        ("GET", "/schema/asyncapi.json"), ("GET", "/client.js"), ("GET", "/login"),
        ("POST", f"{PREFIX}/session"),
    }  # fmt: skip


def test_the_login_page_runs_its_own_script_only(house):
    answer = house.ask("GET", "/login", None)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert b"http" not in answer.body.replace(b"http-equiv", b"")
