"""One run, every way to read it: the same bytes for any cursor and filter, against a list in memory."""

import asyncio
import json
import random

import pytest
from msgspec import Raw
from msgspec.json import decode
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from service.api.filters import RUN_TYPES
from tests.api.asked import any_query, expected, history

QUERIES = 60
SAY = "for n in $(seq 1 90); do echo out $n; if [ $((n % 3)) = 0 ]; then echo err $n >&2; fi; done"


@pytest.fixture(scope="module")
def run(server) -> tuple[str, list[bytes]]:
    """A finished run of the real service, and its events as the audit's download has them."""
    step = {
        "type": "command",
        "config": {"command": "sh", "args": ["-c", SAY]},
        "output": {"code": "exitCode"},
    }
    server.create("everywhere", {"variables": {"code": 7}, "steps": dict.fromkeys(("a", "b", "c"), step)})
    run_id = server.execute("everywhere")
    server.finished(run_id)
    return run_id, history(server, run_id)


async def over_websocket(server, run_id: str, query: str) -> list[bytes]:
    messages, code = [], 0
    async with connect(f"{server.ws_url}/api/v2/workflows/runs/{run_id}/stream?{query}") as client:
        try:
            while True:
                messages.append(await asyncio.wait_for(client.recv(decode=False), 20))
        except ConnectionClosed as closed:
            code = closed.rcvd.code
    assert code == 1000
    return messages


def over_sse(server, run_id: str, query: str) -> list[bytes]:
    answer = server.get(f"/api/v2/workflows/runs/{run_id}/stream?{query}", accept="text/event-stream")
    if answer.status == 204:
        return []
    beginning, *blocks, end = answer.body.removesuffix(b"\n\n").split(b"\n\n")
    assert beginning.startswith(b"retry: ")
    assert end.startswith(b"event: end\n")
    found = []
    for block in blocks:
        if block.startswith(b"event: stream."):
            continue
        seq, data = block.split(b"\n")
        found.append(data.removeprefix(b"data: "))
        assert seq == b"id: %d" % json.loads(found[-1])["seq"]
    return found


def over_lines(server, run_id: str, query: str) -> list[bytes]:
    answer = server.get(f"/api/v2/workflows/runs/{run_id}/stream?{query}", accept="application/x-ndjson")
    assert answer.status == 200
    return answer.body.splitlines()


def over_pages(server, run_id: str, query: str, limit: int) -> list[bytes]:
    parameters = [each for each in query.split("&") if each and not each.startswith("control")]
    found: list[bytes] = []
    while True:
        path = f"/api/v2/workflows/runs/{run_id}/events?{'&'.join([*parameters, f'limit={limit}'])}"
        page = decode(server.get(path).body, type=dict[str, Raw])
        found += [bytes(event) for event in decode(page["data"], type=list[Raw])]
        cursor = decode(page["nextCursor"])
        if cursor is None:
            return found
        parameters = [each for each in parameters if not each.startswith("after")] + [f"after={cursor}"]


async def test_every_way_gives_the_same_bytes(server, run):
    run_id, events = run
    assert len(events) > 360
    assert {json.loads(event)["type"] for event in events} == RUN_TYPES
    chance = random.Random(23)
    filled = 0
    asked_for = [{}, {"types": "all"}, *(any_query(chance, len(events) - 1) for _ in range(QUERIES))]
    for asked in asked_for:
        query = "&".join(f"{name}={value}" for name, value in asked.items())
        wanted = expected(events, asked)
        filled += bool(wanted)

        def told(messages: list[bytes], *, control: bool = "control" in asked) -> list[bytes]:
            said = [message for message in messages if b'"type":"stream.' in message]
            assert bool(said) == control
            return [message for message in messages if message not in said]

        assert told(await over_websocket(server, run_id, query)) == wanted, query
        assert told(over_lines(server, run_id, query)) == wanted, query
        assert over_sse(server, run_id, query) == wanted, query
        assert over_pages(server, run_id, query, chance.choice([7, 100, 1000])) == wanted, query
    assert filled > len(asked_for) / 3


async def test_the_hash_of_the_stream_is_that_of_the_run(server, run):
    run_id, _ = run
    end = json.loads((await over_websocket(server, run_id, "control=1&after=tail"))[-1])
    assert end["payload"]["hash"] == server.run(run_id)["hash"]
    assert end["payload"]["lastSeq"] == server.run(run_id)["lastSeq"]
