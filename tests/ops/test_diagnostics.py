"""What the service says about itself: one line per fact, whatever the fact holds."""

import io
import json
import logging
from urllib.parse import quote

import pytest
import structlog

from service.app import build
from service.log.memory import MemoryLog
from service.ops import diagnostics
from service.ops.settings import Settings
from service.projection import Projections
from tests.api.test_unavailable import ask
from tests.server import Server


@pytest.fixture
def out():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_line_is_json_with_what_was_said(out):
    diagnostics.configure("json", "info", stream=out)
    structlog.get_logger("any").info("said", path="/a\nforged", n=1)
    structlog.get_logger("any").debug("not said")
    [line] = out.getvalue().splitlines()
    said = json.loads(line)
    assert (said["message"], said["path"], said["n"], said["level"]) == ("said", "/a\nforged", 1, "info")


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_value_can_forge_a_line_or_drive_a_terminal(out, form):
    diagnostics.configure(form, "info", stream=out)
    hostile = "a\nb\r\x1b[31mred\x07\x9b\u2028c"
    structlog.get_logger("any").info(hostile, path=hostile)
    logging.getLogger("uvicorn.error").warning("%s", hostile)
    text = out.getvalue()
    assert len(text.splitlines()) == 2
    assert not set(text) & set("\r\x1b\x07\x9b\u2028")


HOSTILE = "a\nb\r\x1b[31mred\x00\x07\x7f\x9b\u2028\u202e\ud800c"


class Odd:
    def __init__(self, text: str | None) -> None:
        self.text = text

    def __repr__(self) -> str:
        if self.text is None:
            raise ZeroDivisionError
        return self.text


@pytest.mark.parametrize("form", ["json", "console"])
def test_nor_can_a_key_a_nested_value_an_exception_or_a_librarys_mistake(out, form):
    diagnostics.configure(form, "info", stream=out)
    log, library = structlog.get_logger("any"), logging.getLogger("uvicorn.error")
    log.info(
        "said",
        **{HOSTILE: 1},
        nested={HOSTILE: [HOSTILE, {"k": (HOSTILE, HOSTILE.encode("utf-8", "replace"))}]},
    )
    log.info("said", odd=Odd(HOSTILE), broken=Odd(None), many={HOSTILE}, nan=float("nan"), long=10**5_000)
    library.warning("%s %s", HOSTILE)
    try:
        raise ValueError(f"{HOSTILE}\n2026-01-02T03:04:05Z [info     ] forged")
    except ValueError:
        log.exception("broken")
        library.exception("a library")
    text = out.getvalue()
    assert not set(text) & set(HOSTILE) - set("\nabcred[31m")
    begun = [line for line in text.split("\n") if line and not line.startswith("  ")]
    assert len(begun) == 5
    if form == "json":
        said = [json.loads(line) for line in begun]
        assert said[0]["nested"][HOSTILE][0] == HOSTILE, "what was said is still there"
        assert HOSTILE in said[3]["exception"]


def test_what_is_long_or_deep_in_a_value_is_cut_too(out):
    diagnostics.configure("json", "info", stream=out)
    deep: list = []
    for _ in range(100):
        deep = [deep, "y" * 1_000]
    structlog.get_logger("any").info(
        "said", deep=deep, wide=list(range(10_000)), many=dict.fromkeys(range(10_000))
    )
    assert len(out.getvalue()) < 20_000
    said = json.loads(out.getvalue())
    assert said["wide"][-1] == "… (10000 items)"


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("secret", ["hunter2", "p\"a's\\s\nw/ö&?"])
def test_no_line_holds_a_declared_secret(out, form, secret):
    diagnostics.configure(form, "info", stream=out, secrets=["", "a", secret])
    log = structlog.get_logger("any")
    said = f"said {secret}"
    log.info(
        said,
        path=f"/{quote(secret, safe='')}",
        nested=[{secret: secret}, secret.encode()],
        odd=Odd(secret),
    )
    log.info("cut", long="x" * (diagnostics.VALUE_LENGTH_MAX - 3) + secret)
    try:
        raise ValueError(secret, {secret})
    except ValueError:
        log.exception("broken")
    logging.getLogger("uvicorn.error").warning("%s", secret)
    text = out.getvalue()
    for spelt in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe="")):
        assert spelt not in text
    assert "path" in text
    assert "hun" not in text


RANDOM = "q7Jm3xZ0bC-9_dKfLrTtYw2Q8sVnHhUeAaGgPpIiOo1"
CREDENTIALS = {
    "a key": f"trk_0123456789abcdef_{RANDOM}",
    "a cut key": "trk_0123456789abcdef",
    "a token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl",
    "a token without its signature": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ",
    "a ticket": f"tailrace.ticket.{RANDOM}",
}


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("which", CREDENTIALS)
def test_no_line_holds_what_looks_like_a_credential(out, form, which):
    credential = CREDENTIALS[which]
    everywhere = "".join(f"%{byte:02x}" for byte in credential.encode())
    diagnostics.configure(form, "info", stream=out)
    log = structlog.get_logger("any")
    said = f"said {credential}"
    log.info(said, path=f"/api/v2/workflows/{credential}", cookie=f"tailrace_session={credential};")
    log.info("said", path=f"/a/{everywhere}/b", other=credential.replace("_", "%5F").replace(".", "%2e"))
    log.info("said", nested=[{credential: (credential,)}], odd=Odd(credential), long="x " * 248 + credential)
    try:
        raise ValueError(credential)
    except ValueError:
        log.exception("broken")
    logging.getLogger("uvicorn.error").warning("%s", credential)
    text = out.getvalue()
    for part in (*credential.split("."), everywhere, credential[:12], credential[-12:]):
        if part not in {"tailrace", "ticket", "tailrace.tic"}:
            assert part not in text
    assert "/api/v2/workflows/***" in text


def test_what_is_no_credential_is_told(out):
    diagnostics.configure("json", "info", stream=out)
    told = [
        "/api/v2/workflows/runs/01980000-0000-7000-8000-000000000000/stream",
        "a%20b",
        "trk_",
        "eyJ",
        "a" * 64,
    ]
    told += ["a-name-of-forty-three-letters-" + "x" * 13, "sha256:" + "0" * 64, RANDOM]  # some name users so
    structlog.get_logger("any").info("said", told=told)
    assert json.loads(out.getvalue())["told"] == told


def test_long_values_are_cut_and_say_so(out):
    diagnostics.configure("json", "info", stream=out)
    structlog.get_logger("any").info("said", path="x" * 10_000)
    path = json.loads(out.getvalue())["path"]
    assert len(path) < 600
    assert path.endswith("(10000 characters)")


def test_an_exception_is_told_with_its_traceback(out):
    diagnostics.configure("json", "info", stream=out)
    try:
        1 / 0
    except ZeroDivisionError:
        structlog.get_logger("any").exception("broken")
    assert "ZeroDivisionError" in json.loads(out.getvalue())["exception"]


def test_the_false_error_of_a_refused_websocket_is_left_out(out):
    diagnostics.configure("json", "info", stream=out)
    library = logging.getLogger("uvicorn.error")
    library.error("ASGI callable returned without completing handshake.")
    library.error("a true one")
    library.info("Shutting down")
    assert [json.loads(line)["message"] for line in out.getvalue().splitlines()] == ["a true one"]


async def test_every_line_of_a_request_carries_its_id(out, tmp_path, monkeypatch):
    async def broken(self, **_):
        logging.getLogger("uvicorn.error").warning("of a library")
        raise ZeroDivisionError

    diagnostics.configure("json", "info", stream=out)
    monkeypatch.setattr(Projections, "workflows", broken)
    async with build(Settings(db=tmp_path / "t.db"), MemoryLog(), port=1) as service:
        out.seek(0), out.truncate()
        answer = await ask(service, "GET", "/api/v2/workflows")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    of_request = [line for line in lines if line["message"] in {"of a library", "request failed", "request"}]
    assert [line["message"] for line in of_request] == ["of a library", "request failed", "request"]
    assert {line.get("request_id") for line in of_request} == {answer.headers["x-request-id"]}


def test_the_service_tells_no_body_no_credential_no_query_and_no_secret(tmp_path):
    canary, secret = "canary-4711", "hunter2-4711"
    steps = {
        "a": {"type": "http", "config": {"url": "http://127.0.0.1:9/{{secrets.KEY}}", "headers": {"x": "{{secrets.KEY}}"}}, "onError": "continue"},
        "b": {"type": "command", "config": {"command": "sh", "args": ["-c", "echo {{secrets.KEY}}; exit 1"]}, "onError": "continue"},
        "c": {"type": "command", "config": {"command": "/nowhere/{{secrets.KEY}}"}, "onError": "continue"},
    }  # fmt: skip
    headers = {"authorization": f"Bearer {canary}", "cookie": f"session={canary}"}
    with Server(tmp_path, TAILRACE_DIAGNOSTICS_LEVEL="debug", TAILRACE_SECRET_KEY=secret) as server:
        server.create("w", {"variables": {"v": canary}, "steps": steps})
        server.finished(server.execute("w", v=canary))
        for body in (b"{" + canary.encode(), b'{"%s": 1}' % canary.encode(), canary.encode() * 200_000):
            answer = server.request(
                "POST", "/api/v2/workflows", body, headers | {"content-type": "application/json"}
            )
            assert answer.status in {400, 413}
        for path in ("/api/v2/workflows", "/api/v2/workflows/runs/x/stream", "/nothing"):
            server.get(f"{path}?token={canary}", **headers)
        server.stop()
    said = server.diagnostics.read_text()
    assert said.count('"request"') > 8
    assert canary not in said
    assert secret not in said
