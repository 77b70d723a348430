"""A real server for http steps to ask."""

import asyncio
import gzip
from typing import Any

from aiohttp import web

from service.steps import Outcome
from service.steps.http import Http
from tests.steps.attempts import Said, attempt


class Upstream:
    """A server that answers what a test asked for and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.ports: list[int] = []
        self.http = Http(http_allow=("127.0.0.0/8",))
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        for host in ("127.0.0.1", "127.0.0.2"):
            site = web.TCPSite(self._runner, host, 0)
            await site.start()
            self.ports.append(site._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        await self.http.close()
        assert self._runner is not None
        await self._runner.cleanup()

    def url(self, path: str, *, other: bool = False) -> str:
        return f"http://127.0.0.{1 + other}:{self.ports[other]}{path}"

    async def run(self, config: dict[str, Any], said: Said | None = None) -> Outcome:
        async with asyncio.timeout(20):
            return await self.http.run(attempt(config, emit=said))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        self.bodies.append(await request.read())
        query = request.query
        if "to" in query:
            return web.Response(status=int(query["status"]), headers={"Location": query["to"]})
        match request.path:
            case "/echo":
                return web.json_response(
                    {"method": request.method, "headers": {k.lower(): v for k, v in request.headers.items()}}
                )
            case "/status":
                return web.Response(status=int(query["status"]), text="because")
            case "/bytes":
                body = b"x" * int(query["n"])
                return web.Response(body=body, content_type="application/octet-stream")
            case "/json":
                return web.Response(body=self.bodies[-1], content_type="text/plain")
            case "/loop":
                return web.Response(status=302, headers={"Location": "/loop"})
            case "/latin":
                return web.Response(
                    body="grün".encode("latin-1"), headers={"content-type": "text/plain; charset=latin-1"}
                )
            case "/text":
                kind = f"text/plain; charset={query['charset']}"
                return web.Response(body=bytes.fromhex(query["hex"]), headers={"content-type": kind})
            case "/cookie":
                return web.Response(text="c", headers={"Set-Cookie": "a=1"})
            case "/bomb":
                return web.Response(body=BOMB, headers={"Content-Encoding": query["with"]})
            case "/trickle":
                response = web.StreamResponse()
                await response.prepare(request)
                while True:
                    await response.write(b"x")
                    await asyncio.sleep(0.05)
        return web.Response(status=404, text="nothing here")


BOMB = gzip.compress(bytes(200 * 1024 * 1024), compresslevel=1)
