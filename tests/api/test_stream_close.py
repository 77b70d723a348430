"""Every close code of the stream, met by a client: what it means and what it says."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from service.api.problems import Problem, Refused
from service.errors import Damaged, Fault, LogUnavailable
from tests.wire.server import START, FailingLog, client_frame, read_head, seal, service, step_log, upgrade

CLOSE = "errors=close"


@pytest.fixture(scope="module")
def running():
    with service() as running:
        asyncio.run(running.write_run(3))
        asyncio.run(running.write_run(0, sealed=False, run_id="live"))
        yield running


async def closed(url: str, says=None, **options) -> tuple[int, str]:
    """Return how a client that is let in is closed."""
    async with connect(url, **options) as client:
        try:
            if says is not None:
                await says(client)
            while True:
                await asyncio.wait_for(client.recv(), 20)
        except ConnectionClosed as end:
            return end.rcvd.code, end.rcvd.reason


@pytest.mark.parametrize(
    ("run_id", "query", "code", "reason"),
    [
        ("r", "", 1000, "run success lastSeq=3"),
        ("r", "after=x", 4400, "/query/after must be a seq, tail, or -n for the last n events"),
        ("r", "nonsense=1", 4400, "/query/nonsense is unknown; known are after"),
        ("unknown", "", 4404, "There is no run 'unknown'."),
        ("no.id", "", 4404, "There is no run 'no.id'."),
        ("unknown", "wait=30ms", 4404, "There is no run 'unknown'."),
        ("r", "after=17", 4409, "Run 'r' is at seq 4: there is no event 17 to continue after."),
        ("live", "after=17&wait=1s", 4409, "Run 'live' is at seq 0"),
    ],
)
async def test_a_refusal_that_a_web_page_can_see(running, run_id, query, code, reason):
    got, said = await closed(running.url(run_id, f"?{query}&{CLOSE}"))
    assert got == code
    assert said.startswith(reason)
    assert len(said.encode()) <= 123


async def test_the_last_event_id_is_refused_so_too(running):
    got = await closed(running.url(query=f"?{CLOSE}"), additional_headers={"Last-Event-ID": "x"})
    assert got == (4400, "/headers/last-event-id must be a seq")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("after=17&errors=%63lose", 4409),
        ("after=17&%65rrors=close", 4409),
        ("%65%72%72ors=clos%65&after=17", 4409),
        ("after=%ff&errors=close", 4400),
    ],
)
async def test_the_wish_is_read_as_any_parameter(running, query, code):
    assert (await closed(running.url(query=f"?{query}")))[0] == code


@pytest.mark.parametrize(
    "query",
    [
        "?after=17",
        "?after=17&errors=closed",
        "?after=17&xerrors=close",
        "?after=17&errors%3Dclose",
        "?after=%ff",
    ],
)
async def test_without_the_wish_it_stays_a_status(running, query):
    with pytest.raises(InvalidStatus) as refused:
        await connect(running.url(query=query))
    assert refused.value.response.status_code in {400, 409}


def test_over_http_the_wish_changes_nothing(running):
    with running.connect() as client:
        client.sendall(b"GET /api/v2/workflows/runs/unknown/stream?errors=close HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_head(client).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("status", [401, 403, 410])
async def test_statuses_that_a_right_or_the_age_of_a_run_brings(status):
    with service(log=FailingLog(1, Refused(Problem(status, "Not you, not now.")))) as running:
        await running.do(running.write(START, seal(0)))
        assert await closed(running.url(query=f"?after=tail&{CLOSE}")) == (4000 + status, "Not you, not now.")


async def test_too_many_clients(running):
    with service(watchers_max=2, watchers_per_run_max=1) as running:
        for run_id in ("a", "b"):
            await running.write_run(0, sealed=False, run_id=run_id)
        async with connect(running.url("a")):
            assert (await closed(running.url("a", f"?{CLOSE}")))[0] == 4429
            async with connect(running.url("b")):
                assert (await closed(running.url("b", f"?{CLOSE}")))[0] == 1013


@pytest.mark.parametrize(
    ("error", "close"),
    [
        (Damaged("run/r", 2), (4500, "run/r: the stored event 2 does not fit its checksum")),
        (LogUnavailable("no disk"), (1013, "The log is unavailable: no disk.")),
    ],
)
async def test_a_log_that_fails_at_once(error, close):
    with service(log=FailingLog(2, error)) as running:
        await running.do(running.write(START, step_log(1), seal(1)))
        assert await closed(running.url(query=f"?after=tail&{CLOSE}")) == close


@pytest.mark.parametrize(
    ("error", "code"),
    [(Damaged("run/r", 2), 4500), (LogUnavailable("no disk"), 1013), (ValueError("oh"), 1011)],
)
async def test_a_log_that_fails_in_mid_stream(error, code):
    with service(log=FailingLog(2, error)) as running:
        await running.do(running.write(START, step_log(1), step_log(2), seal(2)))
        got, reason = await closed(running.url())
        assert got == code
        assert ("event 2" in reason) if code == 4500 else ("resume with after=1" in reason)


async def test_a_shutdown():
    with service() as running:
        await running.write_run(0, sealed=False)
        watching = asyncio.create_task(closed(running.url()))
        while len(running.endpoint.readers) == 0:
            await asyncio.sleep(0.01)
        running.loop.call_soon_threadsafe(running.closing.set)
        assert (await watching)[0] == 1012
        assert await closed(running.url(query=f"?{CLOSE}")) == (1012, "The service is shutting down.")


async def test_who_says_too_much(running):
    async def flood(client) -> None:
        for _ in range(600):
            await client.send("x")

    assert (await closed(running.url("live"), flood))[0] == 1008
    assert (await closed(running.url("live"), lambda client: client.send("x" * 4097)))[0] == 1009


async def test_no_pong():
    with service(ws_ping_interval=0.1, ws_ping_timeout=0.2) as running:
        await running.write_run(0, sealed=False)
        with upgrade(running) as client:  # raw: it answers no PING
            read_head(client)
            data = b""
            while chunk := await asyncio.to_thread(client.recv, 4096):
                data += chunk
                if b"no PONG" in data:
                    client.sendall(client_frame(8, b""))
        assert (1011).to_bytes(2, "big") + b"no PONG for 0.2 s" in data


async def test_no_progress():
    with service(stall_timeout_s=0.8) as running:
        await running.write_run(10_000, size=400)
        with upgrade(running, SO_RCVBUF=4096) as client:
            read_head(client)
            while len(running.endpoint.readers):
                await asyncio.sleep(0.02)
            data = await asyncio.to_thread(read_until, client, b"resume with after=")
        assert (4408).to_bytes(2, "big") + b"no progress for 0.8 s; resume with after=" in data


def read_until(client, text: bytes) -> bytes:
    data = b""
    while text not in data[-200:] and (chunk := client.recv(65536)):
        data += chunk
    return data


def test_a_reason_is_cut_where_a_character_ends():
    problem = Problem(409, "é" * 100)
    assert problem.reason() == "é" * 61
    assert Problem(400, "…", errors=[Fault("/query/a", "x" * 200)]).reason() == "/query/a " + "x" * 114


def test_a_foreign_web_page_and_a_wrong_address_are_told_by_the_service(server):
    async def ask(path: str, **headers: str) -> tuple[int, str]:
        return await closed(server.ws_url + path, additional_headers=headers)

    path = f"/api/v2/workflows/runs/x/stream?{CLOSE}"
    assert asyncio.run(ask(path, origin="https://evil.example"))[0] == 4403
    assert asyncio.run(ask(f"/api/v2/nowhere?{CLOSE}"))[0] == 4404
    assert asyncio.run(ask(path)) == (4404, "There is no run 'x'.")
