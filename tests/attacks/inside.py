"""Addresses inside, in every spelling, reached for directly, by redirect, by a name and by a template.

A listener on every loopback address counts who comes: nobody may.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from aiohttp import web
from yarl import URL

from service.steps.http import Http
from tests.attacks.watched import attacked, regrets
from tests.server import Server
from tests.steps.attempts import attempt
from tests.steps.test_http_refuses import REFUSALS, Listeners, Names, spellings_of_v4, urls

W = "/api/v2/workflows"
OUTSIDE = "127.0.0.77"  # the one address that is allowed: it stands for the world, and redirects inside
AT_ONCE = 16
INNER = [  # more that a name may lead to
    "127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "0.0.0.0", "::", "64:ff9b::7f00:1",
    "2002:7f00:1::", "::127.0.0.1", "169.254.169.254", "fe80::1", "fd00:ec2::254", "10.0.0.1", "192.168.1.1", "172.16.0.1",
    "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255", "ff02::1",
]  # fmt: skip
DOTS = ["\u3002", "\uff0e", "\uff61"]  # what IDNA takes for a dot


def spellings(count: int, port: int, chance: random.Random) -> list[str]:
    """Return ``count`` URLs, or all 250 fixed ones if those are more, that lead inside or nowhere."""
    found = [url for url in urls(port) if "example.com/" not in url.split("@")[-1]]
    for host in (
        "localhost",
        "LocalHost",
        "localhost.localdomain",
        "ip6-loopback",
        "127.0.0.1.",
        "127.0.0.1..",
    ):
        found += [
            f"http://{host}:{port}/",
            f"http://a:b@{host}:{port}/",
            f"http://a%40b@{host}:{port}/?x=http://1.1.1.1/",
        ]
    found += [f"http://127{dot}0{dot}0{dot}1:{port}/" for dot in DOTS]
    found += [
        f"http://[::ffff:127.0.0.1%25lo]:{port}/",
        f"http://[::1]:{port}",
        f"http://l\u00adocalhost:{port}/",
    ]
    found += [f"http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3:{port}/"]  # circled letters
    while len(found) < count:
        inner = f"127.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(1, 255)}"
        found += [
            f"{chance.choice(['http', 'HTTP', 'https'])}://{host}:{port}/" for host in spellings_of_v4(inner)
        ]
    return found[: max(count, 250)]


def run(count: int, seed: int) -> list[str]:
    """Reach for about ``count`` spellings in four ways; return what came through."""
    return asyncio.run(_run(count, random.Random(seed)))


async def _run(count: int, chance: random.Random) -> list[str]:
    faults: list[str] = []
    listeners = Listeners()
    await listeners.start()
    try:
        candidates = spellings(count, listeners.port, chance)
        faults += await _reach(candidates, "direct")
        async with _outside() as outside:
            faults += await _reach(candidates, "redirect", outside)
            faults += await _reach(
                [f"//{urlsplit(url).netloc}/" for url in candidates[:100] if "//" in url], "redirect", outside
            )
        faults += await _by_name(listeners.port, count, chance)
        faults += await asyncio.to_thread(_by_template, candidates)
        if listeners.connections:
            faults.append(f"{listeners.connections} connections were made")
        faults += await _control(listeners)
    finally:
        await listeners.stop()
    return faults


async def _reach(candidates: list[str], way: str, outside: str = "") -> list[str]:
    http = Http(http_allow=(OUTSIDE,))
    faults = []
    left = iter(candidates)

    async def some() -> None:
        for url in left:
            asked = {
                "url": outside,
                "query": {"to": url, "status": ("301", "302", "303", "307", "308")[len(url) % 5]},
            }
            outcome = await http.run(attempt(asked if outside else {"url": url, "timeout": "10s"}))
            # A redirect without a host stays where it was: 404 there.
            expected = REFUSALS | ({"http_status"} if outside else set())
            if outcome.status != "failed" or outcome.error is None or outcome.error.code not in expected:
                faults.append(f"{way}: {url!r} ended as {outcome.status} {outcome.error}")

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())
    await http.close()
    return faults


async def _by_name(port: int, count: int, chance: random.Random) -> list[str]:
    """Names that lead inside, alone, among others, or only the next time they are asked for."""
    faults = []
    for number in range(max(len(INNER), count // 4)):
        http = Http(http_allow=())
        connector = http._session(URL("http://rebound.example/")).connector
        await connector._resolver.close()
        inner = INNER[number % len(INNER)]
        answers = [[inner], chance.sample(INNER, 3)] + [chance.sample(INNER, 1) for _ in range(3)]
        connector._resolver = Names(answers)
        for host in ("rebound.example", "rebound.example.", "REBOUND.example", "a-b.c.d.rebound.example"):
            outcome = await http.run(attempt({"url": f"http://{host}:{port}/", "timeout": "10s"}))
            if outcome.error is None or outcome.error.code != "refused_address":
                faults.append(f"name: {host} at {inner} ended as {outcome.status} {outcome.error}")
        await http.close()
    return faults


def _by_template(candidates: list[str]) -> list[str]:
    """The whole address, or the part behind a base, is a variable of a real run."""
    with attacked() as server:
        server.create("ask", {"variables": {"u": "", "p": ""}, "steps": {
            "whole": {"type": "http", "config": {"url": "{{u}}", "timeout": "10s"}, "onError": "continue"},
            "path": {"type": "http", "config": {"baseUrl": "http://127.0.0.1:9", "path": "{{u}}", "timeout": "10s"},
                     "onError": "continue"},
        }})  # fmt: skip
        run_ids = {server.execute("ask", u=url): url for url in candidates}
        return [
            fault for run_id, url in run_ids.items() for fault in _faults_of_run(server, run_id, url)
        ] + regrets(server)


def _faults_of_run(server: Server, run_id: str, url: str) -> list[str]:
    server.finished(run_id)
    steps = server.get(f"{W}/runs/{run_id}/steps").json["data"]
    codes = {step["stepId"]: (step["status"], (step["error"] or {}).get("code")) for step in steps}
    wrong = {
        step_id: told for step_id, told in codes.items() if told[0] != "failed" or told[1] not in REFUSALS
    }
    return [f"template: {url!r} ended as {wrong}"] if wrong else []


async def _control(listeners: Listeners) -> list[str]:
    """The listener does count who is allowed."""
    http = Http(http_allow=("127.0.0.0/8", "localhost", "::1"))
    before = listeners.connections
    hosts = ("127.0.0.1", "127.3.2.1", "localhost", "[::1]", "[::ffff:127.0.0.1]")
    for host in hosts:
        await http.run(attempt({"url": f"http://{host}:{listeners.port}/"}))
    await http.close()
    return [] if listeners.connections - before == len(hosts) else ["the listener does not count"]


@asynccontextmanager
async def _outside() -> AsyncIterator[str]:
    """Run a server that redirects to wherever it is told, and return its address."""

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(
            status=int(request.query["status"]), headers={"Location": request.query["to"].replace("\r\n", "")}
        )

    app = web.Application()
    app.router.add_get("/", redirect)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, OUTSIDE, 0)
    await site.start()
    try:
        yield f"http://{OUTSIDE}:{site._server.sockets[0].getsockname()[1]}/"  # type: ignore[union-attr]
    finally:
        await runner.cleanup()
