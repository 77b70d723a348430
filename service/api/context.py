"""What the routes work with: built once by app.py, found in the request."""

import asyncio
from collections.abc import Callable
from typing import cast

from msgspec import Struct, field

from service.api.patience import Held
from service.api.requests import AnyRequest
from service.log import Log
from service.projection import Projections
from service.repository import Repository

ANYBODY = "anonymous"  # who asks, until there are credentials


class Context(Struct, frozen=True):
    """The rooms behind the routes.

    ``closing`` is set once the service stops. ``free_bytes``: beside the log. ``unavailable``: why the log
    fails at present, None while it does not. ``held``: the requests that wait for events.
    """

    log: Log
    repository: Repository
    projections: Projections
    closing: asyncio.Event
    free_bytes: Callable[[], int]
    min_free_bytes: int
    unavailable: Callable[[], str | None]
    held: Held = field(default_factory=Held)


def context_of(request: AnyRequest) -> Context:
    """Return the rooms behind the routes."""
    return cast(Context, request.app.state.context)
