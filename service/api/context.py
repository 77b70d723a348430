"""What the routes work with: built once by front.py, found in the request."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from msgspec import Struct, field

from service.api.admission import Admission
from service.api.composing import Composing
from service.api.credentials import Credentials
from service.api.owners import MaySee
from service.api.patience import Held
from service.api.readers import Readers
from service.api.requests import AnyRequest
from service.log import Log
from service.projection import Projections
from service.repository import Repository


class Context(Struct, frozen=True):
    """The rooms behind the routes.

    ``closing`` is set once the service stops. ``free_bytes``: beside the log. ``unavailable``: why the log
    fails at present, None while it does not. ``may_see``: whose runs are whose. ``credentials``:
    who is who. ``readers``: of the streams. ``admission``: of new runs. ``recovered``: whether the engine has
    taken up what a former process left. ``metrics`` gives the figures as text, for an Accept, and its media
    type. ``held``: the requests that wait for events. ``composing``: the answers that grow.
    """

    log: Log
    repository: Repository
    projections: Projections
    closing: asyncio.Event
    free_bytes: Callable[[], int]
    min_free_bytes: int
    unavailable: Callable[[], str | None]
    may_see: MaySee
    credentials: Credentials
    readers: Readers
    admission: Admission
    recovered: Callable[[], bool]
    metrics: Callable[[str], Awaitable[tuple[bytes, str]]]
    held: Held = field(default_factory=Held)
    composing: Composing = field(default_factory=Composing)


def context_of(request: AnyRequest) -> Context:
    """Return the rooms behind the routes."""
    return cast(Context, request.app.state.context)
