"""The service's front, put together: what answers requests, who may ask, and the figures of all of it."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from service.access import Authentication, KeyFile, TokenIssuer
from service.api import api, public_paths, stream_meter
from service.api.admission import Admission
from service.api.context import Context
from service.api.credentials import Credentials
from service.api.gate import Gate, own_authorities
from service.api.health import VERSION
from service.api.owners import Owners
from service.api.peers import Proxies
from service.api.stream import StreamBounds, StreamEndpoint
from service.errors import LogUnavailable
from service.log import Log
from service.ops.families import Engine, Seen, Sources
from service.ops.meters import Meters
from service.ops.metrics import Metrics
from service.ops.settings import Settings
from service.projection import Projections
from service.repository import Repository
from service.segments import Segments

_diagnostics = structlog.get_logger("tailrace")


@dataclass(frozen=True, slots=True)
class Behind:
    """What a front answers from. ``engine`` is None until the unfinished runs are known."""

    log: Log
    repository: Repository
    projections: Projections
    segments: Segments
    engine: Callable[[], Engine | None]
    closing: asyncio.Event
    meters: Meters


class Front:
    """``gate`` answers requests; ``stream.run`` and ``admit`` have to run meanwhile."""

    def __init__(self, settings: Settings, behind: Behind, port: int) -> None:
        """Put it together for ``port`` of the addresses that requests must name as their Host.

        Raises InvalidInput if the keys, or the key of the tokens, cannot be used.
        """
        self._behind = behind
        self._authentication = authentication_of(settings)
        self.stream = self._stream(settings)
        self._context = self._context_of(settings)
        streams = stream_meter.families(self.stream.meter, self.stream.readers)
        self._metrics = Metrics(behind.meters, self._sources(), *streams)
        self.gate = Gate(
            api(self._context, self.stream),
            authorities=own_authorities(settings.host, port, tls=settings.tls_cert is not None),
            hosts=settings.hosts,
            origins=settings.origins,
            credentials=self._context.credentials,
            proxies=Proxies(settings.behind_proxy),
            body_bytes_max=settings.max_body_bytes,
            meter=behind.meters.requests,
        )

    async def admit(self) -> None:
        """Count the runs that are not over, for ever."""
        unfinished = await self._behind.projections.unfinished()
        await self._context.admission.run(unfinished.owners, unfinished.position)

    async def _figures(self, accept: str) -> tuple[bytes, str]:
        return await self._metrics.text(accept)

    def _stream(self, settings: Settings) -> StreamEndpoint:
        behind = self._behind
        return StreamEndpoint(
            behind.log,
            closing=behind.closing,
            bounds=StreamBounds(
                watchers_max=settings.max_watchers,
                watchers_per_run_max=settings.max_watchers_per_run,
                watchers_per_user_max=settings.max_watchers_per_user,
                watchers_per_address_max=settings.max_watchers_per_ip,
                starts_per_minute=settings.max_stream_starts_per_minute,
            ),
            stall_timeout_s=settings.stall_timeout_s,
            drain_timeout_s=settings.drain_timeout_s,
            segments=behind.segments,
            authentication=self._authentication,
            may_see=Owners(behind.repository).may_see,
        )

    def _context_of(self, settings: Settings) -> Context:
        behind, log = self._behind, self._behind.log
        return Context(
            log=log,
            repository=behind.repository,
            projections=behind.projections,
            closing=behind.closing,
            free_bytes=partial(free_bytes, settings.db.absolute().parent),
            min_free_bytes=settings.min_free_bytes,
            unavailable=lambda: getattr(log, "unavailable", None),
            may_see=self.stream.may_see,
            readers=self.stream.readers,
            admission=Admission(
                log,
                unfinished_max=settings.max_unfinished_runs,
                unfinished_per_user_max=settings.max_unfinished_runs_per_user,
                executes_per_minute=settings.max_executes_per_minute,
                checks_s_per_minute=settings.max_check_seconds_per_minute,
            ),
            credentials=Credentials(self._authentication, public_paths()),
            recovered=lambda: behind.engine() is not None,
            metrics=self._figures,
        )

    def _sources(self) -> Sources:
        """Say where the figures are that no meter counts."""
        context, behind = self._context, self._behind
        log, projections = behind.log, behind.projections

        async def look() -> Seen:
            try:
                lag = await projections.lag()
                counts = await projections.run_counts()
                last_seqs = await stream_meter.last_seqs(log, context.readers)
                return Seen(counts, lag.events, lag.seconds, last_seqs)
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
            engine=behind.engine,
            rebuilds=lambda: projections.rebuilds,
            segments=behind.segments.figures,
            requests_held=lambda: context.held.count,
        )


def authentication_of(settings: Settings) -> Authentication:
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
    return Authentication(keys, issuer, exposed=settings.exposed)


def free_bytes(directory: Path) -> int:
    """Return how much of the disk with ``directory`` is left for whoever is not root."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize
