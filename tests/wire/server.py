"""A real uvicorn server around the stream, in a thread of its own, and raw clients."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from service.api.stream import StreamBounds, StreamEndpoint
from service.api.stream_http import KEEPALIVE_INTERVAL_S
from service.domain.events import STEP_TYPES, RunComplete, RunStart, StepLog, encode_run_event
from service.log import APPEND_BYTES_MAX, NewEvent
from service.log.memory import MemoryLog
from service.wire.protocol import HttpProtocol, StreamProtocol

PREFIX = "/api/v2/workflows/runs/"
LARGE = bytes(2 * 1024 * 1024)
TIMESTAMP = "2026-01-02T03:04:05.678Z"


class QuickStreamProtocol(StreamProtocol):
    close_timeout_s = 0.4


class QuickHttpProtocol(HttpProtocol):
    header_timeout_s = 0.8
    request_timeout_s = 1.2
    close_timeout_s = 0.4


class Service:
    """The stream of a MemoryLog on a free loopback port."""

    def __init__(self, *, preframed: bool = True, log=None, certificate=None, **options) -> None:
        self.log = log or MemoryLog()
        self.trust = certificate and ssl.create_default_context(cafile=certificate)
        bounds = {name: options.pop(name) for name in list(options) if name in StreamBounds.__struct_fields__}
        self.options = {
            "bounds": StreamBounds(**{"watchers_max": 100, "watchers_per_run_max": 50} | bounds)
        } | {
            name: options.pop(name, default)
            for name, default in (
                ("stall_timeout_s", 60.0),
                ("drain_timeout_s", 0.0),
                ("keepalive_interval_s", KEEPALIVE_INTERVAL_S),
            )
        }
        self.config = uvicorn.Config(
            self.app,
            interface="asgi3",
            loop=options.pop("loop", "uvloop"),
            http=options.pop("http", QuickHttpProtocol),
            ws=options.pop("ws", QuickStreamProtocol) if preframed else "websockets-sansio",
            ws_per_message_deflate=False,
            lifespan="off",
            log_level="warning",
            timeout_graceful_shutdown=10,
            ssl_certfile=certificate,
            **options,
        )
        self.server = uvicorn.Server(self.config)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.endpoint: StreamEndpoint
        self.loop: asyncio.AbstractEventLoop
        self._ready = threading.Event()

    async def app(self, scope, receive, send) -> None:
        if scope["path"] == "/slurp":
            while (message := await receive())["type"] == "http.request" and message["more_body"]:
                pass
        if scope["path"] in {"/echo", "/slurp"}:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["path"] == "/large":
            headers = [(b"content-length", b"%d" % len(LARGE))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": LARGE})
            return
        if scope["path"] == "/torn":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            return
        run_id = scope["path"].removeprefix(PREFIX).removesuffix("/stream")
        await self.endpoint({**scope, "path_params": {"run_id": run_id}}, receive, send)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.closing = asyncio.Event()
        self.endpoint = StreamEndpoint(self.log, closing=self.closing, **self.options)
        async with asyncio.TaskGroup() as group:
            live = group.create_task(self.endpoint.run())
            self._ready.set()
            await self.server.serve(sockets=[self.socket])
            live.cancel()

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self._serve())

    def stop(self) -> None:
        began = time.monotonic()
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive(), "the server hangs"
        assert time.monotonic() - began < 9, "somebody was waited for until the graceful timeout"
        self.socket.close()

    async def do(self, coroutine):
        """Run ``coroutine`` where the server runs and return its result."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    def url(self, run_id: str = "r", query: str = "") -> str:
        return f"ws://127.0.0.1:{self.port}{PREFIX}{run_id}/stream{query}"

    def connect(self, **options) -> socket.socket:
        client = socket.socket()
        for name, value in options.items():
            client.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        client.settimeout(20)
        client.connect(("127.0.0.1", self.port))
        return self.trust.wrap_socket(client, server_hostname="localhost") if self.trust else client

    # A run, event by event

    async def write(self, *payloads_or_events, run_id: str = "r") -> None:
        stream = f"run/{run_id}"
        after = await self.log.wait(stream, after=-2)
        events = [
            event if isinstance(event, NewEvent) else encoded(event, after + 1 + index, run_id)
            for index, event in enumerate(payloads_or_events)
        ]
        page = max(1, min(500, APPEND_BYTES_MAX // max(len(event.data) for event in events)))
        for start in range(0, len(events), page):
            await self.log.append(stream, events[start : start + page], expected_seq=after + start)

    async def write_run(self, steps: int, *, sealed: bool = True, run_id: str = "r", size: int = 20) -> None:
        """Write a run of ``steps`` step events of ``size`` bytes of message, and its seal."""
        logs = [step_log(index, size) for index in range(1, steps + 1)]
        await self.do(self.write(START, *logs, *([seal(steps)] if sealed else []), run_id=run_id))

    async def stored(self, run_id: str = "r", types=None) -> list[bytes]:
        events = await self.do(self.log.read(f"run/{run_id}", after=-1, limit=10**6))
        return [e.data for e in events if e.type in (types or STEP_TYPES)]


class FailingLog(MemoryLog):
    """Raises ``error`` for every read that would begin with seq ``at``."""

    def __init__(self, at: int, error: Exception) -> None:
        super().__init__()
        self.at = at
        self.error = error

    async def read(self, stream, *, after, limit):
        if after + 1 == self.at:
            raise self.error
        page = await super().read(stream, after=after, limit=limit)
        return [event for event in page if after >= self.at or event.seq < self.at]


START = RunStart("w", 1, {}, {}, {}, "hash")


def step_log(number: int, size: int = 20) -> StepLog:
    return StepLog("s", "info", f"{number:0{size}d}", TIMESTAMP)


def seal(last_seq: int, status: str = "success") -> RunComplete:
    return RunComplete(status, 1, last_seq)


def encoded(payload, seq: int, run_id: str) -> NewEvent:
    return NewEvent(payload.type, encode_run_event(run_id, payload, seq=seq, timestamp=TIMESTAMP))


@contextmanager
def service(**options) -> Iterator[Service]:
    running = Service(**options)
    running.start()
    try:
        yield running
    finally:
        running.stop()


UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
)


def upgrade(running: Service, run_id: str = "r", query: str = "", headers: str = "", **options):
    """Return a raw socket that has sent a WebSocket handshake, and has not read the answer."""
    client = running.connect(**options)
    path = f"{PREFIX}{run_id}/stream{query}"
    client.sendall(UPGRADE.format(path=path, headers=headers).encode())
    return client


def read_head(client: socket.socket) -> bytes:
    """Return the answer's head, byte by byte, so that nothing behind it is consumed."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        assert byte, head
        head += byte
    return head


def client_frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    """Return a masked frame."""
    head = bytes([(0x80 if fin else 0) | opcode])
    if len(data) < 126:
        head += bytes([0x80 | len(data)])
    elif len(data) < 65536:
        head += bytes([0x80 | 126]) + len(data).to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + len(data).to_bytes(8, "big")
    return head + b"\0\0\0\0" + data


def read_all(client: socket.socket) -> bytes:
    """Return everything until the server closes the connection."""
    data = b""
    while chunk := client.recv(65536):
        data += chunk
    return data


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """Return the (opcode, payload) of every unmasked frame in ``data``, the last one whole."""
    frames = []
    at = 0
    while at < len(data):
        opcode, length = data[at] & 0x0F, data[at + 1]
        at += 2
        if length >= 126:
            width = 2 if length == 126 else 8
            length = int.from_bytes(data[at : at + width], "big")
            at += width
        assert at + length <= len(data), "a torn frame"
        frames.append((opcode, data[at : at + length]))
        at += length
    return frames


def close_of(frames: list[tuple[int, bytes]]) -> tuple[int, str]:
    """Return code and reason of the close frame, which must be the last."""
    opcode, data = frames[-1]
    assert opcode == 8, frames[-1]
    assert all(opcode != 8 for opcode, _ in frames[:-1])
    return int.from_bytes(data[:2], "big"), data[2:].decode()
