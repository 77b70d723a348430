"""Control messages: what a stream says about itself, on every transport, and to nobody who did not ask."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from service.api.stream_control import BOOKMARK_EVENTS
from service.domain.events import VariableChange
from service.log import chain_next, chain_seed
from tests.api.streams import Body
from tests.wire.server import START, seal, service, step_log


@pytest.fixture(scope="module", params=[True, False], ids=["preframed", "fallback"])
def running(request):
    with service(preframed=request.param) as running:
        yield running


async def watch(running, run_id: str, query: str) -> list[bytes]:
    messages, code = [], 0
    async with connect(running.url(run_id, query), max_size=None) as client:
        try:
            while True:
                messages.append((await asyncio.wait_for(client.recv(), 20)).encode())
        except ConnectionClosed as closed:
            code = closed.rcvd.code
    assert code == 1000
    return messages


def control(run_id: str, type_: str, **payload) -> bytes:
    return json.dumps(
        {"runId": run_id, "type": f"stream.{type_}", "payload": payload}, separators=(",", ":")
    ).encode()


async def chain(running, run_id: str) -> str:
    head = chain_seed(f"run/{run_id}")
    for event in await running.do(running.log.read(f"run/{run_id}", after=-1, limit=10**6)):
        head = chain_next(head, event.data)
    return head.hex()


async def ended(running, run_id: str, last_seq: int) -> bytes:
    return control(run_id, "end", status="success", lastSeq=last_seq, hash=await chain(running, run_id))


async def test_a_finished_run_is_greeted_and_ended_with_the_hash_of_its_chain(running):
    await running.write_run(700, run_id="done")
    stored = await running.stored("done")
    assert await watch(running, "done", "?control=1") == [
        control("done", "hello", status="success", lastSeq=700, after=None),
        *stored,
        control("done", "caught_up", seq=701),
        await ended(running, "done", 700),
    ]
    assert await watch(running, "done", "?control=0") == stored


@pytest.mark.parametrize(("query", "after"), [("?after=701", 701), ("?after=tail", 701)])
async def test_behind_the_end_there_is_only_control(running, query, after):
    await running.write_run(700, run_id=f"end-{query[7:]}")
    run_id = f"end-{query[7:]}"
    assert await watch(running, run_id, f"{query}&control=1") == [
        control(run_id, "hello", status="success", lastSeq=700, after=after),
        control(run_id, "caught_up", seq=701),
        await ended(running, run_id, 700),
    ]


async def test_a_live_run_is_caught_up_once_and_the_rest_is_new(running):
    await running.do(running.write(START, run_id="live"))
    async with connect(running.url("live", "?control=1")) as client:
        assert (await client.recv()).encode() == control(
            "live", "hello", status="queued", lastSeq=0, after=None
        )
        assert (await client.recv()).encode() == control("live", "caught_up", seq=0)
        await running.do(running.write(step_log(1), step_log(2), run_id="live"))
        assert [(await client.recv()).encode() for _ in range(2)] == await running.stored("live")
    async with connect(running.url("live", "?control=1&after=1")) as client:
        assert (await client.recv()).encode() == control(
            "live", "hello", status="running", lastSeq=2, after=1
        )
        assert (await client.recv()).encode() == (await running.stored("live"))[1]
        assert (await client.recv()).encode() == control("live", "caught_up", seq=2)


async def test_a_filter_that_hides_much_is_marked_at_a_bounded_rate(running):
    run_id, count = "hidden", 6_000
    logs = [step_log(number) for number in range(1, count + 1)]
    logs[3_500] = VariableChange("s", "v", None, 1, "create")  # seq 3501
    await running.do(running.write(START, *logs, seal(count), run_id=run_id))
    messages = [json.loads(each) for each in await watch(running, run_id, "?control=1&types=variable_change")]
    marks = [each["payload"]["seq"] for each in messages if each["type"] == "stream.bookmark"]
    told = [-1, *sorted([*marks, 3_501])]
    assert 4 <= len(marks) <= count // BOOKMARK_EVENTS
    assert all(
        later - earlier >= BOOKMARK_EVENTS or later == 3_501
        for earlier, later in zip(told, told[1:], strict=False)
    )
    assert [each.get("seq") for each in messages if each["type"] == "variable_change"] == [3_501]
    # Whoever comes back with a bookmark misses nothing.
    before = max(mark for mark in marks if mark < 3_501)
    again = await watch(running, run_id, f"?types=variable_change&after={before}")
    assert [json.loads(each)["seq"] for each in again] == [3_501]


async def test_a_run_that_is_waited_for_says_hello_once_it_is_there(running):
    async with connect(running.url("later", "?control=1&wait=30s")) as client:
        await running.do(running.write(START, run_id="later"))
        assert json.loads(await client.recv())["payload"] == {"status": "queued", "lastSeq": 0, "after": None}


async def test_lines_hold_the_same_messages(running):
    await running.write_run(3, run_id="lines")
    body = Body(running, "lines", "?control=1")
    assert body.all(b"\n") == await watch(running, "lines", "?control=1")
    body.close()


async def test_server_sent_they_have_names_so_that_onmessage_never_sees_them(running):
    await running.write_run(3, run_id="sse")
    sse = "Accept: text/event-stream\r\n"
    body = Body(running, "sse", "?control=1", sse)
    hello, caught_up, end = (m for m in await watch(running, "sse", "?control=1") if b'"stream.' in m)
    events = [b"id: %d\ndata: %b" % (seq, data) for seq, data in enumerate(await running.stored("sse"), 1)]
    assert body.all(b"\n\n")[1:] == [
        b"event: stream.hello\ndata: " + hello,
        *events,
        b"event: stream.caught_up\nid: 4\ndata: " + caught_up,
        b"event: stream.end\ndata: " + end,
        b'event: end\nid: 3\ndata: {"status":"success","lastSeq":3}',
    ]
    body.close()
    nothing = Body(running, "sse", "?control=1&after=4", sse)
    assert nothing.status == 204, "control messages alone must not make a browser come back for ever"
    nothing.close()
