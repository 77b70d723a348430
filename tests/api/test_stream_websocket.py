"""The stream over a WebSocket, with a real server and real clients."""

import asyncio
import random
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from service.api.filters import RUN_TYPES
from service.domain.events import STEP_TYPES, RunComplete, StepComplete, VariableChange
from service.errors import Damaged, LogUnavailable
from service.log.memory import MemoryLog
from tests.wire.server import START, FailingLog, seal, service, step_log


@pytest.fixture(scope="module", params=[True, False], ids=["preframed", "fallback"])
def running(request):
    with service(preframed=request.param) as running:
        yield running


async def watch(url: str, **options) -> tuple[list[bytes], int, str]:
    """Return every message of a stream as bytes, and how it was closed."""
    async with connect(url, **options) as client:
        return await rest(client)


async def rest(client) -> tuple[list[bytes], int, str]:
    messages = []
    while True:
        try:
            messages.append((await asyncio.wait_for(client.recv(), 20)).encode())
        except ConnectionClosed as closed:
            return messages, closed.rcvd.code, closed.rcvd.reason


async def test_a_finished_run_is_replayed_and_closed(running):
    await running.write_run(1200, run_id="finished")
    messages, code, reason = await watch(running.url("finished"))
    assert messages == await running.stored("finished")
    assert len(messages) == 1200
    assert (code, reason) == (1000, "run success lastSeq=1200")


async def test_a_live_run_is_replayed_then_tailed_then_closed(running):
    await running.write_run(3, sealed=False, run_id="live")
    async with connect(running.url("live")) as client:
        seen = [(await client.recv()).encode() for _ in range(3)]
        for number in range(4, 20):
            await running.do(running.write(step_log(number), run_id="live"))
            seen.append((await client.recv()).encode())
        await running.do(running.write(seal(19, "failed"), run_id="live"))
        messages, code, reason = await rest(client)
    assert seen == await running.stored("live")
    assert (messages, code, reason) == ([], 1000, "run failed lastSeq=19")


async def test_joining_late_at_every_point_of_a_run_is_the_same_as_live(running):
    await running.write_run(0, sealed=False, run_id="late")
    watching = [asyncio.create_task(watch(running.url("late")))]
    for number in range(1, 25):
        await running.do(running.write(step_log(number), run_id="late"))
        watching.append(asyncio.create_task(watch(running.url("late"))))
    await running.do(running.write(seal(24), run_id="late"))
    watching.append(asyncio.create_task(watch(running.url("late"))))
    streams = await asyncio.gather(*watching)
    assert streams == [(await running.stored("late"), 1000, "run success lastSeq=24")] * 26


async def test_reconnecting_in_mid_run_continues_exactly(running):
    chance = random.Random(7)
    await running.write_run(0, sealed=False, run_id="again")
    seen = []
    written = 0
    while written < 60:
        for _ in range(chance.randrange(1, 6)):
            written += 1
            await running.do(running.write(step_log(written), run_id="again"))
        async with connect(running.url("again", f"?after={len(seen)}")) as client:
            for _ in range(chance.randrange(written - len(seen)) + 1):
                seen.append((await asyncio.wait_for(client.recv(), 20)).encode())
    await running.do(running.write(seal(written), run_id="again"))
    messages, code, _ = await watch(running.url("again", f"?after={len(seen)}"))
    assert seen + messages == await running.stored("again")
    assert code == 1000


def mixed(number: int, chance: random.Random):
    return chance.choice(
        [
            step_log(number),
            VariableChange("s", "v", None, number, "create"),
            StepComplete("s", "s", "success", 1, 1),
        ]
    )


@pytest.mark.parametrize("sealed", [True, False])
async def test_any_cursor_and_filter_against_a_list_in_memory(running, sealed):
    chance = random.Random(11)
    run_id = f"fuzz-{sealed}"
    count = 1300
    payloads = [START, *(mixed(number, chance) for number in range(1, count + 1))]
    await running.do(running.write(*payloads, *([seal(count)] if sealed else []), run_id=run_id))
    events = await running.do(running.log.read(f"run/{run_id}", after=-1, limit=10**6))
    for _ in range(60):
        types = chance.choice(
            [None, "all", *(",".join(chance.sample(sorted(RUN_TYPES), n)) for n in (1, 2, 3))]
        )
        wanted = RUN_TYPES if types == "all" else set(STEP_TYPES if types is None else types.split(","))
        after = chance.choice([None, "tail", -1, -chance.randrange(2, 2000), chance.randrange(len(events))])
        passing = [event.data for event in events if event.type in wanted]
        if after == "tail":
            expected = []
        elif after is not None and after < 0:
            expected = passing[after:]
        else:
            expected = [
                e.data for e in events if e.type in wanted and e.seq > (-1 if after is None else after)
            ]
        query = "&".join(f"{k}={v}" for k, v in (("after", after), ("types", types)) if v is not None)
        async with connect(running.url(run_id, f"?{query}")) as client:
            if sealed:
                messages, code, reason = await rest(client)
                assert (code, reason) == (1000, f"run success lastSeq={count}")
            else:
                messages = [(await asyncio.wait_for(client.recv(), 20)).encode() for _ in expected]
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.recv(), 0.01)
        assert messages == expected, query


async def test_tail_sends_only_what_is_new(running):
    await running.write_run(5, sealed=False, run_id="tail")
    async with connect(running.url("tail", "?after=tail")) as client:
        await running.do(running.write(step_log(6), seal(6), run_id="tail"))
        messages, code, _ = await rest(client)
    assert messages == (await running.stored("tail"))[5:]
    assert code == 1000


@pytest.mark.parametrize("query", ["?after=2", "?after=3", "?after=tail", "?after=3&types=all"])
async def test_a_cursor_at_the_end_of_a_finished_run_closes_at_once(running, query):
    if not await running.do(running.log.read("run/at-end", after=-1, limit=1)):
        await running.write_run(2, run_id="at-end")
    assert await watch(running.url("at-end", query)) == ([], 1000, "run success lastSeq=2")


async def test_the_header_last_event_id_overrides_the_query(running):
    await running.write_run(9, run_id="header")
    headers = {"Last-Event-ID": "7"}
    messages, *_ = await watch(running.url("header", "?after=1"), additional_headers=headers)
    assert messages == (await running.stored("header"))[7:]


async def test_all_types_bring_the_header_and_the_seal(running):
    await running.write_run(2, run_id="all")
    messages, *_ = await watch(running.url("all", "?types=all"))
    assert messages == await running.stored("all", RUN_TYPES)
    messages, *_ = await watch(running.url("all", "?types=run_complete"))
    assert messages == await running.stored("all", {RunComplete.type})


async def test_texts_of_every_script_and_size_arrive_unchanged(running):
    texts = ["", "é", "日本語" * 3000, '\u2028\n\r\x00"\\', "😀" * 40_000]
    logs = [type(step_log(1))("s", "info", text, "t") for text in texts]
    await running.do(running.write(START, *logs, seal(5), run_id="texts"))
    messages, *_ = await watch(running.url("texts"), max_size=None)
    assert messages == await running.stored("texts")


@pytest.mark.parametrize(("kind", "code"), [("text", 1009), ("bytes", 1009), ("flood", 1008)])
async def test_a_client_that_says_too_much_is_closed(running, kind, code):
    await running.write_run(0, sealed=False, run_id=f"says-{kind}")
    async with connect(running.url(f"says-{kind}")) as client:
        try:
            for _ in range(600 if kind == "flood" else 1):
                await client.send({"text": "x" * 4097, "bytes": b"x" * 4097, "flood": "x"}[kind])
        except ConnectionClosed:
            pass
        assert (await rest(client))[1] == code


# A log that fails


@pytest.mark.parametrize(
    ("error", "close"),
    [
        (Damaged("run/r", 801), (4500, "event 801 is damaged")),
        (LogUnavailable("no disk"), (1013, "the log is unavailable; resume with after=800")),
        (ValueError("a mistake"), (1011, "something went wrong on our side; resume with after=800")),
    ],
)
@pytest.mark.parametrize("preframed", [True, False])
async def test_a_fault_of_ours_closes_after_everything_before_it(preframed, error, close):
    with service(log=FailingLog(801, error), preframed=preframed) as running:
        await running.do(running.write(START, *map(step_log, range(1, 1001)), seal(1000)))
        messages, *closed = await watch(running.url())
        stored = await running.do(MemoryLog.read(running.log, "run/r", after=0, limit=800))
        assert messages == [event.data for event in stored]
        assert tuple(closed) == close


@pytest.mark.parametrize(("error", "status"), [(Damaged("run/r", 3), 500), (LogUnavailable("no disk"), 503)])
async def test_a_fault_before_the_upgrade_is_an_http_status(error, status):
    with service(log=FailingLog(3, error)) as running:
        await running.do(running.write(START, *map(step_log, range(1, 3)), seal(2)))
        with pytest.raises(InvalidStatus) as refused:
            await watch(running.url(query="?after=tail"))
        assert refused.value.response.status_code == status


# Many clients


async def test_a_late_client_gets_its_first_message_while_others_replay():
    with service() as running:
        await running.write_run(60_000, size=66)

        async def first() -> float:
            async with connect(running.url(), max_queue=4) as client:
                began = time.monotonic()
                await client.recv()
                return time.monotonic() - began

        waits = await asyncio.gather(*(first() for _ in range(8)))
        assert max(waits) < 1.0  # the clients share this process; scripts/bench measures the 100 ms


async def test_every_client_is_counted_and_none_stays():
    with service(watchers_max=3, watchers_per_run_max=2) as running:
        for run_id in ("a", "b"):
            await running.write_run(0, sealed=False, run_id=run_id)
        async with connect(running.url("a")), connect(running.url("a")):
            with pytest.raises(InvalidStatus) as refused:
                await connect(running.url("a"))
            assert refused.value.response.status_code == 429
            async with connect(running.url("b")):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(running.url("b"))
                assert refused.value.response.status_code == 503
                assert refused.value.response.headers["retry-after"] == "5"
        began = time.monotonic()
        while len(running.endpoint.readers):
            await asyncio.sleep(0.01)
            assert time.monotonic() - began < 5
        assert running.endpoint.readers.of_run == {}, "a run that nobody watches must cost nothing"
        async with connect(running.url("a")):
            assert len(running.endpoint.readers) == 1
