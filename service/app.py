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
from pathlib import Path
from socket import socket
from time import time_ns

import structlog
import uvloop

from service.access import Authentication, KeyFile, TokenIssuer
from service.api import api, public_paths, stream_meter
from service.api.admission import Admission
from service.api.asgi import App
from service.api.context import Context
from service.api.credentials import Credentials
from service.api.gate import Gate, own_authorities
from service.api.health import VERSION
from service.api.owners import Owners
from service.api.peers import Proxies
from service.api.stream import StreamBounds, StreamEndpoint
from service.domain.definition import parse_definition
from service.domain.events import RunComplete
from service.engine.supervisor import Supervisor
from service.errors import LogUnavailable, TailraceError
from service.log import Log
from service.log.lock import hold
from service.log.sqlite import SqliteLog
from service.ops import diagnostics
from service.ops.families import Engine, Seen, Sources
from service.ops.garbage import Collector
from service.ops.meters import Meters
from service.ops.metrics import Metrics
from service.ops.settings import Settings, unknown_names
from service.projection import Projections
from service.repository import Repository
from service.segments import Segments
from service.server import check_certificate, listening, server_of, url_of
from service.steps import Step
from service.steps.registry import close, containment, registry

_diagnostics = structlog.get_logger("tailrace")


class Service:
    """The running parts of one service. ``stopping`` is set by ``stop``, or by a part that failed."""

    def __init__(self) -> None:
        self.app: App
        self.metrics: Metrics
        self.closing = asyncio.Event()
        self.stopping = asyncio.Event()
        self.hurry = asyncio.Event()
        self.failure: str | None = None
        self.supervisor: Supervisor | None = None  # None until the unfinished runs are known

    async def figures(self, accept: str) -> tuple[bytes, str]:
        """Return the figures as ``accept`` asks for them, and their media type."""
        return await self.metrics.text(accept)

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
    try:
        check_certificate(settings)
        with (
            hold(settings.db),
            listening(settings.host, settings.port) as sockets,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            return runner.run(_serve(settings, sockets))
    except (TailraceError, OSError, sqlite3.Error) as error:
        print(f"tailrace: {error}", file=sys.stderr)  # noqa: T201  the one line that a failed start leaves
        return 1


async def _serve(settings: Settings, sockets: list[socket]) -> int:
    meters = Meters()
    log = SqliteLog.open(settings.db, meters.log)
    try:
        async with build(settings, log, port=sockets[0].getsockname()[1], meters=meters) as service:
            await _until_stopped(service, settings, sockets)
    finally:
        await log.close()
    if service.failure is not None:
        print(f"tailrace: {service.failure}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


async def _until_stopped(service: Service, settings: Settings, sockets: list[socket]) -> None:
    server = server_of(service.app, settings)

    def on_signal() -> None:
        service.stop()
        server.force_exit = service.hurry.is_set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    async with asyncio.TaskGroup() as group:
        group.create_task(service.part("HTTP server", partial(server.serve, sockets)))
        print(f"Tailrace listens on {url_of(sockets, tls=settings.tls_cert is not None)}", flush=True)  # noqa: T201
        _diagnostics.info(
            "listening", url=url_of(sockets, tls=settings.tls_cert is not None), db=str(settings.db)
        )
        await service.stopping.wait()
        _diagnostics.info("stopping", reason=service.failure or "signal")
        await service.drain(settings.drain_timeout_s)
        server.should_exit = True


@asynccontextmanager
async def build(
    settings: Settings, log: Log, *, port: int, meters: Meters | None = None
) -> AsyncIterator[Service]:
    """Run everything behind the sockets on ``log`` while the context lasts; ``app`` is its ASGI app.

    ``port``: of the addresses that requests must name as their Host. ``meters``: those that ``log`` tells.
    """
    meters = meters or Meters()
    steps = registry(
        commands=frozenset(settings.commands),
        http_allow=settings.http_allow,
        output_bytes_max=settings.max_output_bytes,
    )
    parse = partial(parse_definition, kinds=steps, steps_max=settings.max_steps)
    repository = Repository(log, parse, lambda: time_ns() // 1_000_000)
    projections = Projections.open(settings.db.with_name(f"{settings.db.name}.views"), log)
    _tell_containment(steps)
    service = Service()
    segments = _segments(settings, log)
    authentication = _authentication(settings)
    owners = Owners(repository)
    stream = _stream(settings, service, log, segments, authentication, owners)
    context = _context(settings, service, stream, repository, projections, authentication)
    streams = stream_meter.families(stream.meter, stream.readers)
    service.metrics = Metrics(meters, _sources(context, service, segments), *streams)
    service.app = _gate(settings, context, stream, port, meters)
    try:
        async with asyncio.TaskGroup() as group:
            parts = [
                group.create_task(
                    service.part("garbage collector", Collector(collect=meters.garbage.timed(gc.collect)).run)
                ),
                group.create_task(service.part("look at the loop", meters.loop.run)),
                group.create_task(service.part("projections", projections.run)),
                group.create_task(service.part("segments", segments.run)),
                group.create_task(service.part("streams", stream.run)),
                group.create_task(service.part("admission", partial(_admit, context.admission, projections))),
                group.create_task(
                    service.part(
                        "engine",
                        partial(_engine, service, settings, repository, projections, steps, meters),
                    )
                ),
            ]
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
        unfinished=unfinished.run_ids,
        position=unfinished.position,
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


async def _admit(admission: Admission, projections: Projections) -> None:
    """Count the runs that are not over."""
    unfinished = await projections.unfinished()
    await admission.run(unfinished.owners, unfinished.position)


def _segments(settings: Settings, log: Log) -> Segments:
    # What can be made again must not take the space that events need.
    directory = settings.db.absolute().parent
    return Segments.open(
        settings.db.with_name(f"{settings.db.name}.segments"),
        log,
        seal_type=RunComplete.type,
        room=lambda: _free_bytes(directory) >= 2 * settings.min_free_bytes,
    )


def _stream(
    settings: Settings,
    service: Service,
    log: Log,
    segments: Segments,
    authentication: Authentication,
    owners: Owners,
) -> StreamEndpoint:
    return StreamEndpoint(
        log,
        closing=service.closing,
        bounds=StreamBounds(
            watchers_max=settings.max_watchers,
            watchers_per_run_max=settings.max_watchers_per_run,
            watchers_per_user_max=settings.max_watchers_per_user,
            watchers_per_address_max=settings.max_watchers_per_ip,
            starts_per_minute=settings.max_stream_starts_per_minute,
        ),
        stall_timeout_s=settings.stall_timeout_s,
        segments=segments,
        authentication=authentication,
        may_see=owners.may_see,
    )


def _context(
    settings: Settings,
    service: Service,
    stream: StreamEndpoint,
    repository: Repository,
    projections: Projections,
    authentication: Authentication,
) -> Context:
    log = stream.log
    return Context(
        log=log,
        repository=repository,
        projections=projections,
        closing=service.closing,
        free_bytes=partial(_free_bytes, settings.db.absolute().parent),
        min_free_bytes=settings.min_free_bytes,
        unavailable=lambda: getattr(log, "unavailable", None),
        may_see=stream.may_see,
        readers=stream.readers,
        admission=Admission(
            log,
            unfinished_max=settings.max_unfinished_runs,
            unfinished_per_user_max=settings.max_unfinished_runs_per_user,
            executes_per_minute=settings.max_executes_per_minute,
        ),
        credentials=Credentials(authentication, public_paths()),
        recovered=lambda: service.supervisor is not None,
        metrics=service.figures,
    )


def _authentication(settings: Settings) -> Authentication:
    """Return who knows the keys and the tokens. Raises InvalidInput if they cannot be used."""
    issuer = None
    if settings.jwt_key_file is not None:
        assert settings.jwt_issuer is not None
        assert settings.jwt_audience is not None
        issuer = TokenIssuer.of_file(
            settings.jwt_key_file,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            leeway_s=settings.jwt_leeway_s,
        )
    keys = KeyFile(settings.keys)
    if issuer is not None:
        keys.ensure()  # its secret signs their sessions
    keys.read()
    return Authentication(keys, issuer)


def _gate(settings: Settings, context: Context, stream: StreamEndpoint, port: int, meters: Meters) -> App:
    return Gate(
        api(context, stream),
        authorities=own_authorities(settings.host, port, tls=settings.tls_cert is not None),
        hosts=settings.hosts,
        origins=settings.origins,
        credentials=context.credentials,
        proxies=Proxies(settings.behind_proxy),
        body_bytes_max=settings.max_body_bytes,
        meter=meters.requests,
    )


def _sources(context: Context, service: Service, segments: Segments) -> Sources:
    """Say where the figures are that no meter counts."""
    log, projections = context.log, context.projections

    def engine() -> Engine | None:
        found = service.supervisor
        return None if found is None else Engine(found.alive, found.waiting, found.places_free)

    async def look() -> Seen:
        try:
            lag = await projections.lag()
            return Seen(await projections.run_counts(), lag.events, lag.seconds)
        except (LogUnavailable, sqlite3.Error) as error:
            _diagnostics.warning("figures left out", reason=str(error))
            return Seen()

    return Sources(
        version=VERSION,
        look=look,
        log_unavailable=lambda: context.unavailable() is not None,
        log_events=lambda: getattr(log, "events", 0),
        appends_waiting=lambda: getattr(log, "appends_waiting", 0),
        free_bytes=context.free_bytes,
        min_free_bytes=context.min_free_bytes,
        engine=engine,
        rebuilds=lambda: projections.rebuilds,
        segments=segments.figures,
        requests_held=lambda: context.held.count,
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


def _free_bytes(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize
