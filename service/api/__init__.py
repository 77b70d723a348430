"""The routes, one list, and the ASGI app that they make together with the stream."""

from collections.abc import Awaitable

import structlog
from litestar import Litestar, Response, Router
from litestar.datastructures import State
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException

from service.api import asyncapi, backup, health, history, openapi, runs, sessions, streams, web, workflows
from service.api.asgi import PREFIX, App, Receive, Scope, Send, send_problem, streamed_run
from service.api.context import Context
from service.api.measured import NO_ROUTE, ROUTE, STREAM
from service.api.problems import MEDIA_TYPE, Problem, problem_of
from service.api.requests import AnyRequest
from service.api.rights import PUBLIC, check_right

ROUTES = (
    workflows.create_workflow,
    workflows.list_workflows,
    workflows.validate_workflow,
    workflows.show_workflow,
    workflows.replace_workflow,
    workflows.delete_workflow,
    runs.execute,
    runs.list_runs,
    runs.list_runs_of_workflow,
    runs.show_run,
    runs.list_steps,
    runs.list_variables,
    runs.cancel,
    history.list_events,
    history.list_logs,
    history.audit,
    backup.back_up,
    sessions.log_in,
    sessions.who_am_i,
    sessions.log_out,
    sessions.issue_ticket,
    streams.list_streams,
)
PLAIN_ROUTES = (
    health.health,
    health.ready,
    health.metrics,
    openapi.document,
    openapi.page,
    asyncapi.document,
    web.client,
    web.login,
)


def public_paths() -> frozenset[tuple[str, str]]:
    """Return each method and path that is for everybody, because its route says so."""
    return frozenset(
        (str(method), prefix + path)
        for prefix, routes in ((PREFIX, ROUTES), ("", PLAIN_ROUTES))
        for route in routes
        for path in route.paths
        for method in route.http_methods
        if route.opt.get("right") == PUBLIC
    )


_diagnostics = structlog.get_logger("tailrace.http")

# Of no route: then litestar tells all that a path has, of which it tells some when OPTIONS is asked of it.
_NO_METHOD = "no method"
# uvicorn sends the head of the answer to a GET, without its body
_ASKED_AS = {"HEAD": "GET", "OPTIONS": _NO_METHOD}


def api(context: Context, stream: App) -> App:
    """Return the whole API as one ASGI app; what refuses strangers stands in front of it (gate.py).

    ``stream`` serves ``…/runs/{runId}/stream`` over HTTP and WebSocket; litestar can route neither an
    ASGI app with a path parameter nor a refusal before the upgrade.
    """
    routes = Litestar(
        [Router(PREFIX, route_handlers=ROUTES), *PLAIN_ROUTES],
        state=State({"context": context, "backups": backup.Backups()}),
        guards=[check_right],
        exception_handlers={Exception: _on_error},
        openapi_config=None,
        logging_config=None,
    )

    # Not async: an open stream would be one call deeper in.
    def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if (run_id := streamed_run(scope)) is not None:
            scope["path_params"] = {"run_id": run_id}
            scope[ROUTE] = STREAM
            return stream(scope, receive, send)
        if scope["type"] == "websocket":
            problem = Problem(404, f"There is no stream at {scope['path']}.")
            return send_problem(scope, receive, send, problem)
        return routed(scope, receive, send)

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        method = _ASKED_AS.get(scope["method"])
        asked = scope if method is None else {**scope, "method": method}
        await routes(asked, receive, send)  # type: ignore[arg-type]  # litestar's own mappings
        scope[ROUTE] = asked.get("path_template") or NO_ROUTE

    return app


def _on_error(request: AnyRequest, error: Exception) -> Response[bytes]:
    if isinstance(error, MethodNotAllowedException) and request.scope["method"] == _NO_METHOD:
        return Response(b"", status_code=204, headers={"allow": _allowed(error)})
    problem = _of_litestar(request, error) if isinstance(error, HTTPException) else problem_of(error)
    if problem.status == 500:
        _diagnostics.error("request failed", exc_info=error)
    return Response(
        problem.body(), status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE
    )


def _of_litestar(request: AnyRequest, error: HTTPException) -> Problem:
    if isinstance(error, NotFoundException):
        return Problem(404, f"There is nothing at {request.scope['path']}.")
    if isinstance(error, MethodNotAllowedException):
        allowed = _allowed(error)
        said = f"{request.scope['method']} is not possible here; possible are {allowed}."
        return Problem(405, said, headers={"allow": allowed})
    return Problem(error.status_code, error.detail)


def _allowed(error: MethodNotAllowedException) -> str:
    methods = (error.headers or {}).get("allow", "").split(", ")
    return ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else methods))
