"""The API in process, behind no gate: what its tests build around it."""

import asyncio
from pathlib import Path
from typing import Any

from service.access import EVERYTHING, Authentication, KeyFile
from service.api.asgi import App, Receive, Scope, Send
from service.api.context import Context
from service.api.credentials import Credentials
from service.api.owners import sees_all
from service.api.rights import GRANT
from service.log import Log
from service.projection import Projections


def open_to_all() -> Credentials:
    """Return what stands before a service without keys."""
    return Credentials(Authentication(KeyFile(Path("no.keys"))), ())


def context_of(log: Log, projections: Projections) -> Context:
    unused: Any = None
    return Context(
        log=log, repository=unused, projections=projections, closing=asyncio.Event(), free_bytes=lambda: 0,
        min_free_bytes=0, unavailable=lambda: None, may_see=sees_all, credentials=open_to_all(),
        readers=unused, admission=unused,
        recovered=lambda: True, metrics=unused,
    )  # fmt: skip


def trusting(app: App) -> App:
    """Return ``app`` for callers who may do everything, as behind the gate of a service without keys."""

    async def passed(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, GRANT: EVERYTHING}, receive, send)

    return passed
