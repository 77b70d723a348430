"""What a route asks of who calls it. A route that says nothing is nobody's: deny by default."""

from typing import Any, cast

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from service.access import Grant
from service.api.asgi import Scope
from service.api.context import context_of
from service.api.requests import AnyRequest, checked_id
from service.errors import Forbidden, NotFound

PUBLIC = "public"  # as a route's right: for everybody, without a credential
ANY = "any"  # for everybody with one, whatever it grants
GRANT = "auth"  # where the gate puts the Grant in the scope; litestar calls it so, too


def needs(right: str) -> dict[str, str]:
    """Return, as a route's ``opt``, that it needs ``right``."""
    return {"right": right}


def granted(scope: Scope) -> Grant:
    """Return what the caller was granted by the gate."""
    return cast(Grant, scope[GRANT])


def check_right(connection: ASGIConnection[Any, Any, Any, Any], route: BaseRouteHandler) -> None:
    """Guard every route: it has to name the right it needs, and the caller to have it. Raises Forbidden."""
    needed = route.opt.get("right")
    if needed == PUBLIC:
        return
    if needed is None:
        raise Forbidden("Nobody was given the right to this.", right="")
    grant = granted(cast(Scope, connection.scope))
    if needed != ANY:
        demand(grant, needed)


def demand(grant: Grant, right: str) -> None:
    """Raise Forbidden unless ``grant`` includes ``right``."""
    if not grant.may(right):
        raise Forbidden(f"{grant.name!r} lacks the right {right!r}.", right=right)


async def own_run(request: AnyRequest, run_id: str) -> str:
    """Return a run's id from a path. Raises NotFound for one that nothing can have, or somebody else's."""
    checked_id(run_id, "run")
    if not await context_of(request).may_see(granted(cast(Scope, request.scope)), run_id):
        raise NotFound("run", run_id)
    return run_id


def caller(request: AnyRequest) -> Grant:
    """Return what the caller of a route was granted."""
    return granted(cast(Scope, request.scope))
