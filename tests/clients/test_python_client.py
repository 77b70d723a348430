"""The official client in Python against the real service, through 1,000 cuts, its restarts and its refusals."""

import asyncio
import re
import subprocess
import sys
from contextlib import ExitStack, aclosing

import pytest

from service.client import Backoff, Client
from service.client.watch import Watch
from tests.clients.client import ROOT
from tests.clients.torture import CuttingProxy
from tests.clients.waiting import AWAY_S
from tests.server import Server

LINES = 20_000
LIVE_LINES = 12_000
BYTES_MAX = (
    4096  # with so much to a cut, and 64 KiB to one behind all that was sent, the runs are long enough
)
CUTS = 1_000
TIMEOUT_S = 120.0

Asked = dict[str, object]

PACED = "i=0; while [ $i -lt LINES ]; do seq $i $((i+99)); i=$((i+100)); sleep 0.01; done"

# What each watch asks for, and how often it is cut; the seed is its place in the list.
FINISHED: list[tuple[Asked, int]] = [
    ({}, 150),
    ({"types": "all"}, 150),
    ({"after": 1234}, 100),
    ({"after": -LINES}, 100),
    ({"step_id": "say", "types": ["step_log", "step_complete"]}, 100),
    ({"types": "all", "live": False}, 100),
]
LIVE: list[tuple[Asked, int]] = [({}, 100), ({"types": "all"}, 100), ({"step_id": "say"}, 100)]
assert sum(cuts for _, cuts in FINISHED + LIVE) == CUTS


def says(lines: int, script: str) -> dict:
    """Return a workflow of a step that prints lines, behind one that prints enough to be worth a bookmark."""
    first = {"command": "seq", "args": [str(lines // 5)]}
    say = {"command": "sh", "args": ["-c", script.replace("LINES", str(lines))]}
    return {
        "steps": {
            "first": {"type": "command", "config": first},
            "say": {"type": "command", "config": say, "dependsOn": ["first"], "onInterrupt": "retry"},
        }
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("torture"), TAILRACE_HOSTS="127.0.0.1") as server:
        server.create("fast", says(LINES, "seq LINES"))
        server.create("paced", says(LIVE_LINES, PACED))
        yield server


@pytest.fixture(scope="module")
def finished(server):
    run_id = server.execute("fast")
    server.finished(run_id, 120)
    return run_id


def direct(server: Server, run_id: str, asked: Asked) -> list[bytes]:
    """Return the lines that the service sends to a reader that is not cut, and is not a client of ours."""
    names = {"step_id": "stepId"}
    given = {name: ",".join(value) if isinstance(value, list) else value for name, value in asked.items()}
    query = "&".join(f"{names.get(name, name)}={value}" for name, value in given.items() if name != "live")
    answer = server.get(f"/api/v2/workflows/runs/{run_id}/stream?{query}", accept="application/x-ndjson")
    assert answer.status == 200, answer
    return [line for line in answer.body.splitlines() if line]


async def at_once(_: float) -> None:
    await asyncio.sleep(0)


def client_of(proxy: CuttingProxy) -> Client:
    return Client(f"http://127.0.0.1:{proxy.port}", backoff=Backoff(attempts=50, sleep=at_once))


async def received(watch: Watch) -> list[bytes]:
    async with asyncio.timeout(TIMEOUT_S):
        return [event.data async for event in watch]


@pytest.mark.parametrize("number", range(len(FINISHED)))
def test_a_finished_run_comes_whole_through_every_cut(server, finished, number):
    asked, cuts = FINISHED[number]
    with CuttingProxy(server.port, seed=number, bytes_max=BYTES_MAX, cuts_max=cuts) as proxy:
        watch = client_of(proxy).watch(finished, **asked)
        data = asyncio.run(received(watch))
        assert proxy.cuts == cuts
    assert data == direct(server, finished, asked)
    assert watch.status == "success"
    assert watch.verified == (asked.get("types") == "all")
    assert watch.summary.startswith(
        f"{len(data)} of {len(data)} events" if "step_id" not in asked else str(len(data))
    )


def test_live_runs_come_whole_through_every_cut(server):
    async def watched(proxies: list[CuttingProxy]) -> tuple[list[str], list[Watch], list[list[bytes]]]:
        run_ids = [server.execute("paced") for _ in LIVE]
        watches = [
            client_of(proxy).watch(run_id, **asked)
            for proxy, run_id, (asked, _) in zip(proxies, run_ids, LIVE, strict=True)
        ]
        return run_ids, watches, await asyncio.gather(*map(received, watches))

    with ExitStack() as stack:
        proxies = [
            stack.enter_context(CuttingProxy(server.port, seed=seed, bytes_max=BYTES_MAX, cuts_max=cuts))
            for seed, (_, cuts) in enumerate(LIVE)
        ]
        run_ids, watches, all_data = asyncio.run(watched(proxies))
        assert [proxy.cuts for proxy in proxies] == [cuts for _, cuts in LIVE]
    for run_id, watch, data, (asked, _) in zip(run_ids, watches, all_data, LIVE, strict=True):
        assert data == direct(server, run_id, asked)
        assert (watch.status, watch.verified) == ("success", asked.get("types") == "all")


def test_a_live_run_comes_whole_through_crashes_and_restarts_of_the_service(tmp_path):
    """The run goes on until a file is there; each of its attempts prints at once what it has to say."""
    gate = tmp_path / "gate"
    script = f"seq LINES; while [ ! -e '{gate}' ]; do sleep 0.05; done"

    async def restarting(server: Server, watch: Watch) -> None:
        for end in (server.kill_hard, server.stop, server.kill_hard):
            enough = watch.received + 1_000
            while watch.received < enough:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(end)
            await asyncio.to_thread(server.start)
        gate.touch()

    async def watched(server: Server, watch: Watch) -> list[bytes]:
        async with asyncio.TaskGroup() as group:
            group.create_task(restarting(server, watch))
            return await received(watch)

    with ExitStack() as stack:
        settings = {"TAILRACE_HOSTS": "127.0.0.1", "TAILRACE_DRAIN_TIMEOUT_S": 1}
        server = stack.enter_context(Server(tmp_path, **settings))
        server.create("gated", says(3_000, script))
        run_id = server.execute("gated")
        proxy = stack.enter_context(CuttingProxy(server.port, seed=5, bytes_max=BYTES_MAX, cuts_max=20))
        backoff = Backoff(first_s=0.05, longest_s=0.2, attempts=1_000)
        watch = Client(f"http://127.0.0.1:{proxy.port}", backoff=backoff).watch(run_id, types="all")
        data = asyncio.run(watched(server, watch))
        assert proxy.cuts == 20
        assert gate.exists()
        assert data == direct(server, run_id, {"types": "all"})
        assert (watch.status, watch.verified) == ("success", True)


def test_a_service_without_room_is_waited_for(tmp_path):
    """Its only place is taken by a reader who leaves once the client has been refused three times."""
    pauses: list[float] = []

    async def watched(server: Server) -> Watch:
        three = asyncio.Event()

        async def sleep(pause_s: float) -> None:
            pauses.append(pause_s)
            if len(pauses) >= 3:
                three.set()
                await asyncio.sleep(0.05)

        resting = Client(server.url).watch(server.execute("resting"))
        watch = Client(server.url, backoff=Backoff(attempts=1_000, sleep=sleep)).watch(
            server.execute("quick")
        )
        async with asyncio.timeout(TIMEOUT_S):
            async with aclosing(aiter(resting)) as events:
                await anext(events)
                waiting = asyncio.create_task(received(watch))
                await three.wait()
            await waiting
        return watch

    with Server(tmp_path, TAILRACE_MAX_WATCHERS=1, TAILRACE_DRAIN_TIMEOUT_S=1) as server:
        server.create("resting", {"steps": {"rest": {"type": "wait", "config": {"duration": "1h"}}}})
        server.create("quick", says(10, "seq LINES"))
        watch = asyncio.run(watched(server))
        assert watch.summary == f"{watch.received} of {watch.received} events"
    assert [pause_s for pause_s in pauses if pause_s < 5] == []  # what Retry-After says


def test_cut_off_before_its_first_event_it_loses_nothing(relay, waiting):
    pauses = []

    async def away(pause_s: float) -> None:
        pauses.append(pause_s)
        await asyncio.sleep(AWAY_S)

    async def watched() -> list[bytes]:
        watch = Client(relay.url, backoff=Backoff(sleep=away)).watch(waiting.id, after="tail")
        data, _ = await asyncio.gather(received(watch), asyncio.to_thread(waiting.miss, relay))
        return data

    assert [data.decode() for data in asyncio.run(watched())] == waiting.new
    assert len(pauses) == 1


def test_a_run_may_come_later_than_its_watch(server):
    async def watched() -> Watch:
        client = Client(server.url)
        watch = client.watch("from-here", wait_s=TIMEOUT_S)
        async with asyncio.TaskGroup() as group:
            group.create_task(received(watch))
            await asyncio.sleep(0)
            await client.save({"workflowId": "later", "definition": says(3, "seq LINES")})
            for _ in range(2):  # the same run: the id is ours
                accepted = await client.execute("later", run_id="from-here")
                assert accepted["runId"] == "from-here"
        return watch

    watch = asyncio.run(watched())
    assert (watch.status, watch.received) == ("success", len(direct(server, "from-here", {})))


def test_the_readme_says_what_works_in_python(server):
    """Pasted into a file and run, with only the address replaced."""
    server.create("test-websocket-workflow", says(3, "seq LINES"))
    readme = (ROOT / "README.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    assert "http://127.0.0.1:8080" in program
    program = program.replace("http://127.0.0.1:8080", server.url)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    *lines, last = done.stdout.splitlines()
    assert re.match(r"1 step_start \{", lines[0])
    assert last == f"success {len(lines)} of {len(lines)} events"
