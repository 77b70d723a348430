"""uvicorn as we run it: our sockets, our protocol classes, our signals."""

import asyncio
import errno
import os
import resource
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, cast

import structlog
import uvicorn

from service.api.asgi import App
from service.api.peers import Proxies
from service.errors import TailraceError
from service.ops.settings import Settings
from service.wire.connections import Connections
from service.wire.http_protocol import HttpProtocol
from service.wire.protocol import StreamProtocol

GRACE_S = 5  # for open requests once the service closes
KEEP_ALIVE_S = 75  # an idle connection; longer than the 60 s of the usual proxies, so that they close first
BACKLOG = 2048  # connections that wait to be accepted
FILES_SPARE_MIN = (
    8  # fewer descriptors left: connections may be dropped before anybody sees that none is left
)
TICKS_PER_LOOK = 10  # a tick is uvicorn's 0.1 s
PORT_ATTEMPTS_MAX = 20  # to find one port that is free in both families

_WITHOUT_IPV6 = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}

_diagnostics = structlog.get_logger("tailrace.server")


class CannotListen(TailraceError):
    """The address cannot be had: in use, not allowed, or not of this machine."""


class Server(uvicorn.Server):
    """uvicorn's server without its signals, which are the composition root's.

    When no file descriptor is left, new connections wait or are dropped, or uvloop closes the listening
    socket for good; it says nothing of any of these. So it gets duplicates, and another when one is closed.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._duplicates: dict[socket.socket, socket.socket] = {}  # of each socket that we listen on
        self._short = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on duplicates of ``sockets``."""
        for one in sockets or []:
            one.setblocking(False)  # duplicates share that: one that blocked would stop the loop in accept
            self._duplicates[one] = one.dup()
        await super().startup(list(self._duplicates.values()))

    async def on_tick(self, counter: int) -> bool:
        """Look once a second whether connections can be accepted; return whether the server ends."""
        ends = await super().on_tick(counter)
        if not ends and counter % TICKS_PER_LOOK == 0:
            heard = [await self._listens(one, two) for one, two in self._duplicates.items()]
            self._tell(short=not all(heard) or any(map(_few_files_left, self._duplicates)))
        return ends

    async def _listens(self, one: socket.socket, duplicate: socket.socket) -> bool:
        """Say whether connections were accepted until now; if that has been ended, listen again."""
        if duplicate.fileno() >= 0:
            return True
        try:
            again = one.dup()
        except OSError:
            return False  # the next look tries again
        make = partial(
            cast(Any, self.config.http_protocol_class),
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state,
        )  # fmt: skip
        loop, config = asyncio.get_running_loop(), self.config
        try:
            server = await loop.create_server(make, sock=again, ssl=config.ssl, backlog=config.backlog)
        except OSError:
            again.close()
        else:
            self._duplicates[one] = again
            self.servers.append(server)
        return False

    def _tell(self, *, short: bool) -> None:
        if short and not self._short:
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            _diagnostics.warning(
                "new connections may be dropped", reason="too many open files", files_max=limit
            )
        elif self._short and not short:
            _diagnostics.info("there are enough file descriptors again")
        self._short = short


def server_of(app: App, settings: Settings, refused: Callable[[int, str, str], None] | None = None) -> Server:
    """Return a server for ``app``; ``serve(sockets)`` runs it until ``should_exit`` is set.

    ``refused`` is told of requests that ``app`` never sees: the status, the peer's address, the answer's id.
    """
    application: Any = app

    class Protocol(HttpProtocol):
        counted = Connections(settings.max_connections_per_ip, Proxies(settings.behind_proxy).counted_peer)

        def refused(self, status: int, address: str, request_id: str) -> None:
            if refused is not None:
                refused(status, address, request_id)

    return Server(
        uvicorn.Config(
            application,
            interface="asgi3",
            http=Protocol,
            ws=StreamProtocol,
            ws_per_message_deflate=False,
            ws_ping_interval=settings.ping_interval_s,
            ws_ping_timeout=settings.pong_timeout_s,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            proxy_headers=False,
            forwarded_allow_ips="",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


def check_certificate(settings: Settings) -> None:
    """Raise CannotListen, naming the files, for a certificate and a key that do not make TLS together."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise CannotListen(
            f"cannot speak TLS with {settings.tls_cert} and {settings.tls_key}: {reason}"
        ) from None


@contextmanager
def listening(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Hold listening sockets: of both loopback families for an empty ``host``, all on one port (0: any free).

    Raises CannotListen.
    """
    with ExitStack() as stack:
        sockets = _bound(host, port)
        for one in sockets:
            stack.callback(one.close)
        yield sockets


def url_of(sockets: list[socket.socket], *, tls: bool = False) -> str:
    """Return where a client on this machine finds the service."""
    host, port = sockets[0].getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def raise_open_files() -> int:
    """Let this process open as many files as it is ever allowed to; return how many it was allowed before.

    That many are what programs are used to, which may ``select``: who starts one gives them back.
    """
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # more than the kernel gives to anyone by now
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return before


def _few_files_left(one: socket.socket) -> bool:
    spare: list[int] = []
    try:
        while len(spare) < FILES_SPARE_MIN:
            spare.append(os.dup(one.fileno()))
    except OSError:
        return True
    finally:
        for fd in spare:
            os.close(fd)
    return False


def _bound(host: str, port: int) -> list[socket.socket]:
    for _ in range(PORT_ATTEMPTS_MAX):
        sockets: list[socket.socket] = []
        try:
            for family, address in _addresses(host):
                taken = sockets[0].getsockname()[1] if sockets else port
                one = _bind(family, address, taken, optional=bool(sockets) and not host)
                if one is not None:
                    sockets.append(one)
        except OSError as error:
            for one in sockets:
                one.close()
            if port == 0 and error.errno == errno.EADDRINUSE:
                continue  # free in one family, taken in the other: another one, then
            raise CannotListen(_reason(host, port, error)) from None
        return sockets
    raise CannotListen(f"no port is free on {host or 'loopback'}")


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    if host in {"", "localhost"}:
        return [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _bind(family: socket.AddressFamily, address: str, port: int, *, optional: bool) -> socket.socket | None:
    """Return a bound socket, or None where there is no such family and it is ``optional``."""
    try:
        one = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if optional and error.errno in _WITHOUT_IPV6:
            return None
        raise
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        one.bind((address, port))
        one.listen(BACKLOG)  # clients that come before the first accept wait
    except OSError as error:
        one.close()
        if optional and error.errno in _WITHOUT_IPV6:
            return None
        raise
    return one


def _reason(host: str, port: int, error: OSError) -> str:
    where = f"{host or '127.0.0.1 and ::1'}, port {port}"
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {where}: it is in use; another --port can be given, 0 takes a free one"
    return f"cannot listen on {where}: {error.strerror or error}"
