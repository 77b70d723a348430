"""Looks up the addresses of host names, so that a name server which does not answer holds up nobody else.

The loop's own way has four threads (uvloop), and a lookup that nobody awaits any more stays in their queue.
"""

import asyncio
import socket
from contextlib import suppress
from threading import Thread
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

THREADS_MAX = 256  # lookups at once, each of another name: several times what attempts may run
KEPT_S = 10  # that a name's addresses are good for
KEPT_MAX = 1_000  # names

_Key = tuple[str, socket.AddressFamily]
_Found = list[ResolveResult] | Exception


class Names(AbstractResolver):
    """Resolves as the host does; those who ask for one name share one lookup, whose thread ends with it."""

    def __init__(self) -> None:
        self._lookups: dict[_Key, asyncio.Future[_Found]] = {}  # those under way, and those that are kept
        self._awaited: dict[_Key, int] = {}  # by how many, of those under way
        self._queued: dict[_Key, None] = {}  # until there is a thread
        self._threads = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of ``host``. Raises OSError, and ValueError for what is no name."""
        key = host, family
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = asyncio.get_running_loop().create_future()
            self._queued[key] = None
            self._begin()
        self._awaited[key] = self._awaited.get(key, 0) + 1
        try:
            found = await asyncio.shield(lookup)
        finally:
            self._leave(key)
        if isinstance(found, Exception):
            raise found.with_traceback(None)
        return [{**each, "port": port} for each in found]

    async def close(self) -> None:
        """Nothing is held: the threads are daemons."""

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queued and self._threads < THREADS_MAX:
            key = next(iter(self._queued))
            del self._queued[key]
            self._threads += 1
            try:
                Thread(target=self._look_up, args=(key, loop), name="lookup", daemon=True).start()
            except RuntimeError:  # this process may have no more of them
                loop.call_soon(self._on_found, key, OSError("no thread for the lookup"))

    def _look_up(self, key: _Key, loop: asyncio.AbstractEventLoop) -> None:
        found: _Found
        try:
            found = _addresses(*key)
        except Exception as error:  # noqa: BLE001  raised where it is awaited
            found = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._on_found, key, found)

    def _on_found(self, key: _Key, found: _Found) -> None:
        self._threads -= 1
        self._lookups[key].set_result(found)
        if isinstance(found, Exception) or len(self._lookups) > KEPT_MAX:
            del self._lookups[key]
        else:
            asyncio.get_running_loop().call_later(KEPT_S, self._lookups.pop, key)
        self._begin()

    def _leave(self, key: _Key) -> None:
        self._awaited[key] -= 1
        if not self._awaited[key]:
            del self._awaited[key]
            if key in self._queued:
                del self._queued[key], self._lookups[key]


def _addresses(host: str, family: socket.AddressFamily) -> list[ResolveResult]:
    infos = socket.getaddrinfo(host, 0, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        {
            "hostname": host,
            "host": _text(address),
            "port": 0,
            "family": kind,
            "proto": protocol,
            "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        }
        for kind, _, protocol, _, address in infos
    ]


def _text(address: tuple[Any, ...]) -> str:
    """Return the address itself, with its scope if it has one."""
    if len(address) == 4 and address[3]:
        return socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
    return str(address[0])
