"""What the API says when it cannot do its work: nothing is lost silently, and nothing is a bare 500."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from service.api import bodies, gate
from service.api.peers import Proxies
from service.app import Service, build
from service.errors import LogUnavailable, NotCaughtUp
from service.log.memory import MemoryLog
from service.ops.meters import RequestMeter
from service.ops.settings import Settings
from service.projection import Projections
from tests.api.inside import open_to_all

W = "/api/v2/workflows"
DEFINITION = {"steps": {"a": {"type": "wait", "config": {"duration": 1}}}}


class Answer:
    def __init__(self, sent: list) -> None:
        self.status = sent[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        self.json = json.loads(b"".join(message["body"] for message in sent[1:]))


async def ask(service: Service, method: str, path: str, body: object = None) -> Answer:
    """Send one request to the app itself."""
    data = b"" if body is None else json.dumps(body).encode()
    sent = []

    async def receive():
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost:1"), (b"content-length", str(len(data)).encode())]
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": b"", "scheme": "http", "http_version": "1.1", "state": {},
        "headers": [*headers, (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 2), "server": ("127.0.0.1", 1),
    }  # fmt: skip
    await service.app(scope, receive, send)
    return Answer(sent)


class Failing(MemoryLog):
    """Stores and then fails to say so, or fails without storing, as long as it is told to."""

    failing: str | None = None

    async def append(self, stream, events, *, expected_seq):
        if self.failing == "before":
            raise LogUnavailable("no such device", stored=False)
        appended = await super().append(stream, events, expected_seq=expected_seq)
        if self.failing == "after":
            raise LogUnavailable("input/output error", stored=None)
        return appended


@asynccontextmanager
async def serving(tmp_path):
    log = Failing()
    async with build(Settings(db=tmp_path / "t.db", min_free_bytes=0), log, port=1) as service:
        assert (await ask(service, "POST", W, {"workflowId": "w", "definition": DEFINITION})).status == 201
        yield service, log


async def test_the_app_runs_on_any_log(tmp_path):
    async with serving(tmp_path) as (service, _):
        listed = await ask(service, "GET", W)
        assert (listed.status, [row["workflowId"] for row in listed.json["data"]]) == (200, ["w"])
        assert (await ask(service, "GET", "/ready")).status == 200
        assert service.failure is None


@pytest.mark.parametrize(("failing", "outcome"), [("before", "not stored"), ("after", "unknown")])
async def test_a_503_names_the_run_and_its_repeat_finds_it(tmp_path, failing, outcome):
    async with serving(tmp_path) as (service, log):
        log.failing = failing
        answer = await ask(service, "POST", f"{W}/w/execute", {"variables": {"n": 1}})
        log.failing = None
        assert (answer.status, answer.json["outcome"]) == (503, outcome)
        assert "retry-after" in answer.headers
        run_id = answer.json["runId"]
        assert (await log.wait(f"run/{run_id}", after=-2) >= 0) == (failing == "after")
        again = await ask(service, "POST", f"{W}/w/execute", {"variables": {"n": 1}, "runId": run_id})
        assert (again.status, again.json["runId"]) == (202, run_id)


async def test_readiness_gives_every_reason(tmp_path, monkeypatch):
    async def behind(self, timeout_s=0):
        raise NotCaughtUp

    async with serving(tmp_path) as (service, log):
        monkeypatch.setattr(Projections, "caught_up", behind)
        monkeypatch.setattr(type(log), "unavailable", "no such device", raising=False)
        service.closing.set()
        answer = await ask(service, "GET", "/ready")
        assert (answer.status, answer.json["reasons"]) == (
            503,
            [
                {"code": "draining", "text": "the service is shutting down"},
                {"code": "projection_behind", "text": "the lists are behind the log"},
                {"code": "log_unavailable", "text": "the log is unavailable: no such device"},
            ],
        )
        assert (await ask(service, "GET", "/health")).status == 200
        assert (await ask(service, "GET", f"{W}/runs")).status == 503


async def test_a_fault_of_ours_is_a_problem_without_its_details(tmp_path, monkeypatch):
    async def broken(self, **_):
        raise ZeroDivisionError("the secret is hunter2")

    async with serving(tmp_path) as (service, _):
        monkeypatch.setattr(Projections, "workflows", broken)
        answer = await ask(service, "GET", W)
        assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
        assert "hunter2" not in str(answer.json)
        assert "x-request-id" in answer.headers


async def test_a_body_that_does_not_come_is_408(monkeypatch):
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.01)
    sent = []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        raise AssertionError("it must not come this far")

    headers = [(b"host", b"localhost:1"), (b"content-length", b"5")]
    door = gate.Gate(
        app,
        authorities=["localhost:1"],
        credentials=open_to_all(),
        proxies=Proxies(),
        meter=RequestMeter(),
        body_bytes_max=10,
    )
    await door({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive, send)
    answer = Answer(sent)
    assert (answer.status, answer.headers["connection"]) == (408, "close")
