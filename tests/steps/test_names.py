"""Names that no server answers for hold up those who ask for them, and nobody else."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from service.steps import names
from service.steps.http import Http
from service.steps.names import Names
from tests.steps.attempts import attempt
from tests.steps.upstream import Upstream


class NameServer:
    """Stands before the host's own: names of .slow get no answer until ``answers`` is set."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: Counter[str] = Counter()
        self._real = socket.getaddrinfo

    def getaddrinfo(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        self.asked[name] += 1
        if name.endswith(".slow"):
            self.answers.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        if name.endswith(".good"):
            return self._real("127.0.0.1", *args, **kwargs)
        return self._real(host, *args, **kwargs)

    def asked_slow(self) -> int:
        return sum(count for name, count in self.asked.items() if name.endswith(".slow"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    yield server
    server.answers.set()


async def come_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def cancelled(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("allowed", [("127.0.0.0/8",), ("host.good", "127.0.0.0/8")])
async def test_slow_names_do_not_hold_up_another(
    upstream: Upstream, server: NameServer, allowed: tuple[str, ...]
) -> None:
    http = Http(http_allow=allowed)
    slow = [await http.run(attempt({"url": f"http://a{number}.slow/", "timeout": 1})) for number in range(64)]
    assert {outcome.status for outcome in slow} == {"timeout"}
    waiting = [
        asyncio.create_task(http.run(attempt({"url": f"http://b{number}.slow/"}))) for number in range(64)
    ]
    await come_true(lambda: server.asked_slow() >= 64)
    url = upstream.url("/echo").replace("127.0.0.1", "host.good")
    outcome = await http.run(attempt({"url": url, "timeout": "20s"}))
    assert outcome.status == "success", outcome.error
    server.answers.set()
    for outcome in await asyncio.gather(*waiting):
        assert outcome.error is not None
        assert outcome.error.code == "connect"
    await http.close()


async def test_those_who_ask_for_one_name_share_its_lookup(upstream: Upstream, server: NameServer) -> None:
    http = Http(http_allow=("127.0.0.0/8",))
    for _ in range(64):
        outcome = await http.run(attempt({"url": "http://dead.slow/", "timeout": 1}))
        assert outcome.status == "timeout"
    assert server.asked["dead.slow"] == 1
    url = upstream.url("/status?status=200").replace("127.0.0.1", "host.good")
    for _ in range(2):
        asked = [asyncio.create_task(http.run(attempt({"url": url, "timeout": "20s"}))) for _ in range(16)]
        assert {outcome.status for outcome in await asyncio.gather(*asked)} == {"success"}
    assert server.asked["host.good"] == 1
    await http.close()


async def test_a_lookup_that_nobody_awaits_leaves_the_queue(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "THREADS_MAX", 4)
    http = Http(http_allow=())
    resolver = http._names
    first = [asyncio.create_task(resolver.resolve(f"a{number}.slow")) for number in range(4)]
    await come_true(lambda: server.asked_slow() == 4)
    queued = [
        asyncio.create_task(http.run(attempt({"url": f"http://b{number}.slow/"}))) for number in range(8)
    ]
    last = asyncio.create_task(resolver.resolve("host.good"))
    await come_true(lambda: len(resolver._queued) == 9)
    await cancelled(queued)
    await cancelled(first)
    assert list(resolver._queued) == [("host.good", socket.AF_INET)]
    server.answers.set()
    async with asyncio.timeout(20):
        assert [each["host"] for each in await last] == ["127.0.0.1"]
    assert server.asked_slow() == 4
    assert not resolver._awaited
    await come_true(lambda: list(resolver._lookups) == [("host.good", socket.AF_INET)])  # the first four end
    await http.close()


async def failing(resolver: Names, host: str) -> BaseException:
    with pytest.raises(Exception) as caught:
        await resolver.resolve(host, 80, socket.AF_UNSPEC)
    return caught.value


async def test_names_resolve_as_the_host_resolves_them(server: NameServer) -> None:
    resolver = Names()
    server.answers.set()
    for _ in range(2):
        found = await resolver.resolve("localhost", 8080, socket.AF_INET)
        assert [(each["host"], each["port"], each["hostname"]) for each in found] == [
            ("127.0.0.1", 8080, "localhost")
        ]
    assert isinstance(await failing(resolver, "a.slow"), socket.gaierror)
    assert isinstance(await failing(resolver, "a.slow"), socket.gaierror)
    assert server.asked["a.slow"] == 2  # a failure is not kept
    assert isinstance(await failing(resolver, "a" * 70 + ".example"), ValueError)


async def test_without_threads_a_lookup_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolver = Names()
    monkeypatch.setattr(names.Thread, "start", none_left)
    assert isinstance(await failing(resolver, "localhost"), OSError)
    assert resolver._threads == 0
