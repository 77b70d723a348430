"""Rights that are taken away in mid-stream, and the list of who reads what."""

import asyncio
import http.client
import json
import time
from collections.abc import Sequence

import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from service.access import KeyFile
from service.app import build
from service.log.memory import MemoryLog
from service.ops.settings import Settings
from tests.projection.histories import append_frames, long_frames
from tests.server import Server

W = "/api/v2/workflows"
TALKS = {
    "steps": {"a": {"type": "command", "config": {"command": "sh", "args": ["-c", "echo hi; sleep 600"]}}}
}
SECRET = "a shared secret of the identity provider"
ENDED_WITHIN_S = 40.0  # 60 are promised


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("access")
    (directory / "jwt").write_text(SECRET)
    server = Server(
        directory, TAILRACE_JWT_KEY_FILE=directory / "jwt", TAILRACE_JWT_ISSUER="i", TAILRACE_JWT_AUDIENCE="a",
        TAILRACE_JWT_LEEWAY_S=0, TAILRACE_DRAIN_TIMEOUT_S=0,
    )  # fmt: skip
    server.key = server.create_key("root", "admin")
    with server:
        server.create("talks", TALKS)
        yield server


@pytest.fixture(scope="module")
def run(server):
    """A run of ann's that goes on, and has said something."""
    root, server.key = server.key, server.create_key("ann")
    run_id = server.execute("talks")
    deadline = time.monotonic() + 20
    while not server.get(f"{W}/runs/{run_id}/events?types=step_log&stepId=a&limit=10").json["data"][1:]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server.key = root
    return run_id


async def closed(server, run_id: str, key: str, query: str = "") -> tuple[int, str]:
    """Watch until the stream is closed, and return the code and the reason."""
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{server.ws_url}{W}/runs/{run_id}/stream{query}"
    async with connect(url, additional_headers=headers) as ws:
        while True:
            try:
                await ws.recv()
            except ConnectionClosedError as error:
                return error.rcvd.code, error.rcvd.reason


def body(server, run_id: str, key: str, accept: str) -> str:
    """Read a stream over HTTP until it ends, and return all of it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ENDED_WITHIN_S)
    try:
        headers = {"authorization": f"Bearer {key}", "accept": accept}
        connection.request("GET", f"{W}/runs/{run_id}/stream", headers=headers)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def jwt_of(name: str, lifetime_s: float) -> str:
    return jwt.encode(
        {"iss": "i", "aud": "a", "sub": name, "scope": "read", "exp": int(time.time() + lifetime_s)},
        SECRET,
        "HS256",
    )


async def test_who_may_no_more_is_sent_away_from_every_form_and_others_stay(server, run):
    keys = [server.create_key("ann", "read") for _ in range(4)]
    stays = server.create_key("ann", "read")
    admin = server.create_key("boss", "admin")
    async with asyncio.TaskGroup() as group, asyncio.timeout(ENDED_WITHIN_S):
        staying = group.create_task(closed(server, run, stays))
        ending = [
            group.create_task(closed(server, run, keys[0])),
            group.create_task(closed(server, run, keys[1], "?level=warn&control=1")),
            group.create_task(closed(server, run, admin)),
            group.create_task(closed(server, run, jwt_of("ann", 4))),
        ]
        bodies = [
            group.create_task(asyncio.to_thread(body, server, run, key, accept))
            for key, accept in ((keys[2], "text/event-stream"), (keys[3], "application/x-ndjson"))
        ]
        shrunk = server.create_key("ann", "read,run")
        shrinking = group.create_task(closed(server, run, shrunk))
        while len(open_streams(server, run)) < 8:
            await asyncio.sleep(0.05)
        take_right_away(server, shrunk)
        server.revoke_keys(*keys, admin)
        for code, reason in [await each for each in ending]:
            assert code == 4401
            assert "resume with after=" in reason or "after" in reason, reason
        assert (await shrinking)[0] == 4403
        events, lines = [await each for each in bodies]
        assert "event: fault" in events
        assert json.loads(lines.splitlines()[-1])["problem"]["status"] == 401
        assert not staying.done()
        assert [stream["user"] for stream in open_streams(server, run)] == ["ann"]
        staying.cancel()


async def test_who_waits_for_a_page_and_may_no_more_gets_none(server, run):
    key = server.create_key("ann", "read")
    head = server.run(run)["lastSeq"]
    path = f"{W}/runs/{run}/events?after={head}&wait=3s"
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(asyncio.to_thread(server.get, path, authorization=f"Bearer {key}"))
        await asyncio.sleep(0.5)  # once it waits; earlier it is refused at once, which is as well
        server.revoke_keys(key)
    assert waiting.result().status == 401


async def test_nor_does_who_may_read_no_more_or_not_everybody_s(server, run):
    key, boss = server.create_key("ann", "read,run"), server.create_key("boss", "admin")
    head = server.run(run)["lastSeq"]
    path = f"{W}/runs/{run}/events?after={head}&wait=3s"
    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(asyncio.to_thread(server.get, path, authorization=f"Bearer {each}"))
            for each in (key, boss)
        ]
        await asyncio.sleep(0.5)
        take_right_away(server, key)
        take_right_away(server, boss, ["read"])
    assert [each.result().status for each in waiting] == [403, 403]


@pytest.mark.parametrize(("changed", "status"), [("revoked", 401), ("may not read", 403), ("no admin", 403)])
@pytest.mark.parametrize("path", ["/api/v2/events", "/api/v2/backups"])
async def test_a_download_ends_where_the_right_to_it_does(tmp_path, changed, status, path):
    log, keys = MemoryLog(), KeyFile(tmp_path / "t.db.keys")
    await append_frames(log, "long", long_frames(20_000))
    key, text = keys.create("boss", ("admin",), 0)
    settings = Settings(db=tmp_path / "t.db")
    parts: list[bytes] = []

    def change() -> None:
        if changed == "revoked":
            keys.revoke((key.id,), 1)
            return
        book = json.loads(keys.path.read_text())
        book["keys"][key.id]["rights"] = ["metrics"] if changed == "may not read" else ["read"]
        keys.path.write_text(json.dumps(book))

    async with build(settings, log, port=1) as service:
        await downloaded(service.app, path, text, parts, change)
    assert json.loads(parts[-1].splitlines()[-1])["problem"]["status"] == status
    assert 1 < b"".join(parts).count(b"\n") < 10_000


async def downloaded(app, path: str, key: str, parts: list[bytes], change) -> None:
    """Read an answer as NDJSON into ``parts``; ``change`` is called once there is something."""
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])
    changes, over = iter([change]), asyncio.Event()

    async def receive() -> dict:
        if message := next(messages, None):
            return message
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        if body := message.get("body"):
            parts.append(body)
            if sum(part.count(b"\n") for part in parts) > 600:
                next(changes, lambda: None)()
        if message["type"] == "http.response.body" and not message.get("more_body"):
            over.set()

    method = "POST" if path.endswith("backups") else "GET"
    headers = [(b"host", b"localhost:1"), (b"authorization", f"Bearer {key}".encode())]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [*headers, (b"accept", b"application/x-ndjson")], "client": ("127.0.0.1", 1), "server": ("x", 80),
    }  # fmt: skip
    async with asyncio.timeout(20):
        await app(scope, receive, send)


def take_right_away(server: Server, key: str, left: Sequence[str] = ("run",)) -> None:
    path = server.db.with_name("tailrace.db.keys")
    book = json.loads(path.read_text())
    book["keys"][key.split("_")[1]]["rights"] = list(left)
    path.write_text(json.dumps(book))


def open_streams(server, run_id: str) -> list[dict]:
    return server.get(f"/api/v2/streams?runId={run_id}").json["data"]


async def test_the_list_of_streams_says_who_reads_what_and_how_far(server, run):
    ann, bob = server.create_key("ann", "read"), server.create_key("bob", "read")
    head = server.run(run)["lastSeq"]
    url = f"{server.ws_url}{W}/runs/{run}/stream"
    headers = {"Authorization": f"Bearer {ann}"}
    async with (
        connect(url, additional_headers=headers) as first,
        connect(url + "?after=1", additional_headers=headers),
    ):
        for _ in range(head):
            await first.recv()
        async with asyncio.timeout(10):
            while {stream["phase"] for stream in open_streams(server, run)} != {"live"}:
                await asyncio.sleep(0.02)
        listed = open_streams(server, run)
        assert len(listed) == 2
        assert listed[0].items() >= {
            "runId": run, "user": "ann", "form": "websocket", "after": head, "lastSeq": head, "lag": 0,
        }.items()  # fmt: skip
        assert listed[0]["openFor"] >= listed[1]["openFor"] >= 0
        page = server.get(f"/api/v2/streams?runId={run}&limit=1").json
        assert (page["total"], page["nextCursor"]) == (2, listed[0]["id"])
        rest = server.get(f"/api/v2/streams?runId={run}&cursor={page['nextCursor']}").json
        assert [stream["id"] for stream in rest["data"]] == [listed[1]["id"]]
        of_bob = server.get("/api/v2/streams", authorization=f"Bearer {bob}").json
        assert (of_bob["data"], of_bob["total"]) == ([], 0)
        assert len(server.get("/api/v2/streams", authorization=f"Bearer {ann}").json["data"]) == 2
    async with asyncio.timeout(10):
        while open_streams(server, run):
            await asyncio.sleep(0.02)
