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
from tests.api.test_openapi import wrong

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


def test_every_frame_is_described(document, frames):
    messages = document["components"]["messages"]
    assert {frame["type"] for frame in frames} == set(messages), "the runs must bring every message"
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


def test_every_refusal_has_a_close_code_that_is_described(document):
    described = {int(code) for code in document["channels"]["run"]["x-close-codes"]}
    assert {Problem(status, "…").close_code for status in CLOSING_STATUSES} <= described
    assert problem_of(Damaged("run/r", 1)).close_code in described
    assert SHUTTING_DOWN.close_code in described


def test_the_page_leads_to_it(server):
    assert b"href=/schema/asyncapi.json" in server.get("/schema").body
