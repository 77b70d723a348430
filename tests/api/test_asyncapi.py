"""The AsyncAPI document holds for what a stream really sends, and names every message, parameter and close."""

import asyncio
import copy
import json
import re

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from service.api.asgi import CLOSING_STATUSES
from service.api.patience import SHUTTING_DOWN
from service.api.problems import Problem, problem_of
from service.errors import Damaged
from tests.api.streams import Body
from tests.api.test_openapi import wrong
from tests.wire import server as wire
from tests.wire.server import START, FailingLog, client_frame, seal, service, step_log

LINES = "for n in $(seq 1 2400); do echo $n; done"


@pytest.fixture(scope="module")
def document(server):
    answer = server.get("/schema/asyncapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return answer.json


def command(script: str, **more) -> dict:
    return {"type": "command", "config": {"command": "sh", "args": ["-c", script]}, **more}


async def frames_of(server, run_id: str, query: str) -> list[dict]:
    frames = []
    async with connect(f"{server.ws_url}/api/v2/workflows/runs/{run_id}/stream?{query}") as client:
        try:
            while True:
                frames.append(json.loads(await asyncio.wait_for(client.recv(), 20)))
        except ConnectionClosed:
            return frames


@pytest.fixture(scope="module")
def frames(server) -> list[dict]:
    """Frames of runs that go well, retry, fail, skip and are cancelled: every type and most of their fields."""
    found = []
    definitions = {
        "well": {"a": command(LINES, output={"code": "exitCode"})},
        "badly": {
            "a": command("exit 3", retry={"maxAttempts": 2, "interval": 1}),
            "b": command("true", dependsOn=["a"]),
        },
        "cancelled": {"a": {"type": "wait", "config": {"duration": "1h"}}},
    }
    for name, steps in definitions.items():
        server.create(name, {"variables": {"code": None}, "steps": steps})
        run_id = server.execute(name)
        if name == "cancelled":
            server.post(f"/api/v2/workflows/runs/{run_id}/cancel", {"reason": "enough"})
        server.finished(run_id)
        for query in ("types=all&control=1", "types=variable_change&control=1"):
            found += asyncio.run(frames_of(server, run_id, query))
    return found


async def last_part(separator: bytes, accept: str, *, log=None, stops: bool = False) -> bytes:
    """Return the last part of a run's stream over HTTP; ``stops``: of a service that does before the run."""
    with service(log=log) as running:
        await running.do(running.write(START, *map(step_log, range(1, 5)), *([] if stops else [seal(4)])))
        body = Body(running, "r", headers=f"Accept: {accept}\r\n")
        if stops:
            running.loop.call_soon_threadsafe(running.closing.set)
        *_, last = await asyncio.to_thread(body.all, separator)
        body.close()
        return last


def damaged() -> FailingLog:
    return FailingLog(3, Damaged("run/r", 3))


@pytest.fixture(scope="module")
def over_http() -> list[tuple[str, dict]]:
    """What really ends streams over HTTP, by the names of the document."""
    found = []
    for log in (None, damaged()):
        last = asyncio.run(last_part(b"\n\n", "text/event-stream", log=log)).decode()
        name, data = re.fullmatch(r"event: (\w+)\n(?:id: \d+\n)?data: (.*)", last).groups()
        found.append((f"sse.{name}", json.loads(data)))
    for log, stops in ((damaged(), False), (None, True)):
        line = asyncio.run(last_part(b"\n", "application/x-ndjson", log=log, stops=stops))
        found.append(("ndjson.problem", json.loads(line)))
    return found


def test_what_ends_a_stream_over_http_is_described(document, over_http):
    messages = document["components"]["messages"]
    assert [name for name, _ in over_http] == ["sse.end", "sse.fault", "ndjson.problem", "ndjson.problem"]
    for name, said in over_http:
        assert wrong(said, messages[name]["payload"], document) == [], said
        for key in said:
            without = {each: value for each, value in said.items() if each != key}
            required = {"status", "lastSeq", "problem", "type", "title", "detail"}
            assert bool(wrong(without, messages[name]["payload"], document)) == (key in required)
    for name in ("end", "fault"):
        assert f"`event: {name}`" in messages[f"sse.{name}"]["summary"]
    assert [said["problem"]["status"] for name, said in over_http if name == "ndjson.problem"] == [500, 503]


def test_every_frame_is_described(document, frames, over_http):
    messages = document["components"]["messages"]
    sent = {frame["type"] for frame in frames} | {name for name, _ in over_http}
    assert sent == set(messages), "the runs must bring every message"
    for frame in frames:
        assert wrong(frame, messages[frame["type"]]["payload"], document) == [], frame


def test_a_frame_that_is_not_described_is_found(document, frames):
    messages = document["components"]["messages"]
    for frame in frames[:50]:
        for break_ in (
            lambda broken: broken.update(type="other"),
            lambda broken: broken.update(extra=1),
            lambda broken: broken.pop("runId"),
            lambda broken: broken["payload"].pop(next(iter(broken["payload"]))),
            lambda broken: broken["payload"].update(extra=1),
        ):
            broken = copy.deepcopy(frame)
            break_(broken)
            assert wrong(broken, messages[frame["type"]]["payload"], document)


def test_each_reference_leads_somewhere(document):
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        target = document
        for key in reference.removeprefix("#/").split("/"):
            target = target[key]


def test_its_parameters_are_those_that_the_stream_knows(server, document):
    properties = document["channels"]["run"]["bindings"]["ws"]["query"]["properties"]
    problem = server.get("/api/v2/workflows/runs/x/stream?nonsense=1").json
    assert problem["errors"][0]["message"] == f"is unknown; known are {', '.join(properties)}"


def test_a_websocket_goes_on_behind_the_last_event_id_too(server, document, frames):
    assert list(document["channels"]["run"]["bindings"]["ws"]["headers"]["properties"]) == ["Last-Event-ID"]
    run_id = frames[0]["runId"]
    last = server.run(run_id)["lastSeq"]

    async def first() -> dict:
        url = f"{server.ws_url}/api/v2/workflows/runs/{run_id}/stream?after=1"
        async with connect(url, additional_headers={"Last-Event-ID": str(last - 1)}) as client:
            return json.loads(await client.recv())

    assert asyncio.run(first())["seq"] == last


def bad_frames() -> dict[int, bytes]:
    """Frames of a client, and how it is closed for each."""
    return {
        1002: bytes([0xF1, 0x80, 0, 0, 0, 0]),
        1007: client_frame(1, b"\xff\xff"),
        1008: client_frame(1, b"x") * 600,
        1009: client_frame(1, b"x" * 4097),
    }


@pytest.mark.parametrize("code", bad_frames())
def test_every_close_that_a_client_brings_on_itself_is_described(document, code):
    with service() as running:
        asyncio.run(running.write_run(0, sealed=False))
        with wire.upgrade(running) as client:
            wire.read_head(client)
            client.sendall(bad_frames()[code])
            assert wire.close_of(wire.frames_of(wire.read_all(client)))[0] == code
    assert document["channels"]["run"]["x-close-codes"][str(code)]["client"] == "mend"


def test_every_refusal_has_a_close_code_that_is_described(document):
    described = {int(code) for code in document["channels"]["run"]["x-close-codes"]}
    assert {Problem(status, "…").close_code for status in CLOSING_STATUSES} <= described
    assert problem_of(Damaged("run/r", 1)).close_code in described
    assert SHUTTING_DOWN.close_code in described


def test_the_page_leads_to_it(server):
    assert b"href=/schema/asyncapi.json" in server.get("/schema").body
