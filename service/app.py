"""The composition root: puts the rooms together, runs them, and ends them in order.

The only file that names a concrete log.
"""

import asyncio
import gc
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from socket import socket
from time import time_ns

import structlog
import uvloop

from service.access import ANONYMOUS
from service.api.gate import Gate
from service.api.opening import opening
from service.domain.definition import parse_definition
from service.domain.events import RunComplete
from service.engine.supervisor import Supervisor
from service.errors import TailraceError
from service.front import Behind, Front, free_bytes
from service.log import Log
from service.log.lock import hold
from service.log.sqlite import SqliteLog
from service.ops import diagnostics
from service.ops.families import Engine
from service.ops.garbage import Collector, keep_freed_memory
from service.ops.meters import Meters
from service.ops.settings import Settings, unknown_names
from service.projection import Projections
from service.repository import Repository
from service.segments import Segments
from service.server import check_certificate, listening, raise_open_files, server_of, url_of
from service.steps import Step
from service.steps.registry import close, containment, registry

OPENS_WITHIN_S = 1.0  # else it has much to do
START_BYTES = 1024 * 1024  # that must be free: SQLite's files beside the log and beside what is made from it
ROOM_INTERVAL_S = 1.0

_diagnostics = structlog.get_logger("tailrace")


class Service:
    """The running parts of one service. ``stopping`` is set by ``stop``, or by a part that failed."""

    def __init__(self) -> None:
        self.app: Gate
        self.closing = asyncio.Event()
        self.stopping = asyncio.Event()
        self.hurry = asyncio.Event()
        self.failure: str | None = None
        self.supervisor: Supervisor | None = None  # None until the unfinished runs are known

    def engine(self) -> Engine | None:
        """Return how the engine is, None until the unfinished runs are known."""
        found = self.supervisor
        return (
            None if found is None else Engine(found.alive, found.waiting, found.left_out, found.places_free)
        )

    def stop(self) -> None:
        """Begin to stop; asked a second time, stop at once."""
        (self.hurry if self.stopping.is_set() else self.stopping).set()

    async def drain(self, timeout_s: float) -> None:
        """Close the streams, accept nothing more, and give running steps ``timeout_s`` to end."""
        self.closing.set()
        if self.supervisor is None:
            return
        async with asyncio.TaskGroup() as group:
            ways = [
                group.create_task(self.supervisor.drain(timeout_s)),
                group.create_task(self.hurry.wait()),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()

    async def part(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a part that never ends by itself; if it does, the service stops and says why."""
        try:
            await run()
            if not self.stopping.is_set():
                self.failure = f"the {name} ended"
        except Exception as error:  # noqa: BLE001  whatever it is, the service ends in order
            self.failure = f"the {name} failed: {error}"
            _diagnostics.exception("part failed", part=name)
        self.stopping.set()


def serve(settings: Settings) -> int:
    """Run the service until SIGTERM or SIGINT and return the exit code; prints its address on stdout."""
    secrets = settings.secrets.values()
    diagnostics.configure(settings.diagnostics, settings.diagnostics_level, secrets=secrets)
    for name, meant in unknown_names(os.environ):
        _diagnostics.warning("unknown setting", name=name, meant=meant)
    keep_freed_memory()
    try:
        check_certificate(settings)
        with (
            hold(settings.db),
            listening(settings.host, settings.port) as sockets,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            return runner.run(_serve(settings, sockets, raise_open_files()))
    except (TailraceError, OSError, sqlite3.Error) as error:
        print(f"tailrace: {error}", file=sys.stderr)  # noqa: T201  the one line that a failed start leaves
        return 1


async def _serve(settings: Settings, sockets: list[socket], files_max: int) -> int:
    meters = Meters()
    log = await _opened(settings, sockets, meters)
    try:
        port = sockets[0].getsockname()[1]
        async with build(settings, log, port=port, meters=meters, files_max=files_max) as service:
            await _until_stopped(service, settings, sockets)
    finally:
        await log.close()
    if service.failure is not None:
        print(f"tailrace: {service.failure}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


async def _opened(settings: Settings, sockets: list[socket], meters: Meters) -> SqliteLog:
    """Open the log; if that takes its time, tell so to whoever asks meanwhile. Raises LogUnavailable."""
    directory = settings.db.absolute().parent

    def has_room() -> bool:
        return free_bytes(directory) >= START_BYTES

    async def opened() -> SqliteLog:
        if not has_room():
            _diagnostics.warning("the disk is full, waiting for space", bytes_wanted=START_BYTES)
        while not has_room():  # noqa: ASYNC110  nothing tells; to end would be to be started again, and mute
            await asyncio.sleep(ROOM_INTERVAL_S)
        return await asyncio.to_thread(SqliteLog.open, settings.db, meters.log)

    log = asyncio.ensure_future(opened())
    done, _ = await asyncio.wait([log], timeout=OPENS_WITHIN_S)
    if not done:
        _diagnostics.info("the log is being opened", db=str(settings.db))
        server = server_of(opening(has_room), settings)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve([one.dup() for one in sockets]))  # it closes what it is given
            await asyncio.wait([log])
            server.should_exit = True  # who comes in between waits to be accepted
    return log.result()


async def _until_stopped(service: Service, settings: Settings, sockets: list[socket]) -> None:
    server = server_of(service.app, settings, service.app.refused)

    def on_signal() -> None:
        service.stop()
        server.force_exit = service.hurry.is_set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    async with asyncio.TaskGroup() as group:
        group.create_task(service.part("HTTP server", partial(server.serve, sockets)))
        print(f"Tailrace listens on {url_of(sockets, tls=settings.tls_cert is not None)}", flush=True)  # noqa: T201
        _diagnostics.info(
            "listening",
            url=url_of(sockets, tls=settings.tls_cert is not None),
            db=str(settings.db),
            sqlite=sqlite3.sqlite_version,
        )
        await service.stopping.wait()
        _diagnostics.info("stopping", reason=service.failure or "signal")
        await service.drain(settings.drain_timeout_s)
        server.should_exit = True


@asynccontextmanager
async def build(
    settings: Settings, log: Log, *, port: int, meters: Meters | None = None, files_max: int = 0
) -> AsyncIterator[Service]:
    """Run everything behind the sockets on ``log`` while the context lasts; ``app`` is its ASGI app.

    ``port``: of the addresses that requests must name as their Host. ``meters``: those that ``log`` tells.
    ``files_max``: how many files a command may open, 0 for as many as the service.
    """
    meters = meters or Meters()
    steps = registry(
        commands=frozenset(settings.commands),
        http_allow=settings.http_allow,
        output_bytes_max=settings.max_output_bytes,
        files_max=files_max,
    )
    parse = partial(parse_definition, kinds=steps)
    repository = Repository(log, parse, lambda: time_ns() // 1_000_000, steps_max=settings.max_steps)
    projections = Projections.open(settings.db.with_name(f"{settings.db.name}.views"), log)
    _tell_containment(steps)
    service = Service()
    segments = _segments(settings, log)
    behind = Behind(log, repository, projections, segments, service.engine, service.closing, meters)
    front = Front(settings, behind, port)
    service.app = front.gate
    ways: dict[str, Callable[[], Awaitable[None]]] = {
        "garbage collector": Collector(collect=meters.garbage.timed(gc.collect)).run,
        "look at the loop": meters.loop.run,
        "projections": projections.run,
        "segments": segments.run,
        "streams": front.stream.run,
        "admission": front.admit,
        "engine": partial(_engine, service, settings, repository, projections, steps, meters),
    }
    try:
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(service.part(name, run)) for name, run in ways.items()]
            yield service
            for part in parts:
                part.cancel()
    finally:
        await close(steps)
        await segments.close()
        await projections.close()


async def _engine(
    service: Service,
    settings: Settings,
    repository: Repository,
    projections: Projections,
    steps: Mapping[str, Step],
    meters: Meters,
) -> None:
    """Take up what is unfinished, as soon as the projections know it, and go on from there."""
    unfinished = await projections.unfinished()
    service.supervisor = Supervisor(
        log=repository.log,
        repository=repository,
        steps=steps,
        unfinished=unfinished.owners,
        position=unfinished.position,
        anonymous=ANONYMOUS,
        runs_max=settings.max_runs,
        parallel_steps_max=settings.max_parallel_steps,
        parallel_steps_per_run_max=settings.max_parallel_steps_per_run,
        events_per_run_max=settings.max_events_per_run,
        events_per_s_per_run_max=settings.max_events_per_s_per_run,
        env=settings.env,
        secrets=settings.secrets,
        meter=meters.engine,
    )
    await service.supervisor.run()


def _segments(settings: Settings, log: Log) -> Segments:
    # What can be made again must not take the space that events need.
    directory = settings.db.absolute().parent
    return Segments.open(
        settings.db.with_name(f"{settings.db.name}.segments"),
        log,
        seal_type=RunComplete.type,
        room=lambda: free_bytes(directory) >= 2 * settings.min_free_bytes,
    )


def _tell_containment(steps: Mapping[str, Step]) -> None:
    """Say what keeps commands from outliving the service; what starts here is needed for the first one."""
    try:
        contained = containment(steps)
    except OSError as error:
        _diagnostics.warning("commands cannot be started", reason=str(error))
        return
    if contained == "process group":
        _diagnostics.warning("commands may leave descendants behind", contained_by=contained)
    else:
        _diagnostics.info("commands are contained", contained_by=contained)
