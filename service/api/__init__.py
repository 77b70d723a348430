"""The routes, one list, and the ASGI app that they make together with the stream."""

import re

import structlog
from litestar import Litestar, Response, Router
from litestar.datastructures import State
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException

from service.api import asyncapi, health, history, openapi, runs, web, workflows
from service.api.asgi import App, Receive, Scope, Send, send_problem
from service.api.context import Context
from service.api.problems import MEDIA_TYPE, Problem, problem_of
from service.api.requests import AnyRequest

PREFIX = "/api/v2"

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
)
PLAIN_ROUTES = (
    health.health,
    health.ready,
    openapi.document,
    openapi.page,
    asyncapi.document,
    web.client,
)

_STREAM_PATH = re.compile(rf"{PREFIX}/workflows/runs/([^/]+)/stream/?")
_diagnostics = structlog.get_logger("tailrace.http")


def api(context: Context, stream: App) -> App:
    """Return the whole API as one ASGI app; what refuses strangers stands in front of it (gate.py).

    ``stream`` serves ``…/runs/{runId}/stream`` over HTTP and WebSocket; litestar can route neither an
    ASGI app with a path parameter nor a refusal before the upgrade.
    """
    routes = Litestar(
        [Router(PREFIX, route_handlers=ROUTES), *PLAIN_ROUTES],
        state=State({"context": context}),
        exception_handlers={Exception: _on_error},
        openapi_config=None,
        logging_config=None,
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if found := _STREAM_PATH.fullmatch(scope["path"]):
            scope["path_params"] = {"run_id": found[1]}
            await stream(scope, receive, send)
        elif scope["type"] == "websocket":
            await send_problem(scope, receive, send, Problem(404, f"There is no stream at {scope['path']}."))
        else:
            if scope["method"] == "HEAD":  # uvicorn sends the head of the answer to a GET, without its body
                scope = {**scope, "method": "GET"}
            await routes(scope, receive, send)  # type: ignore[arg-type]  # litestar's own mappings

    return app


def _on_error(request: AnyRequest, error: Exception) -> Response[bytes]:
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
        methods = (error.headers or {}).get("allow", "").split(", ")
        allowed = ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else methods))
        said = f"{request.scope['method']} is not possible here; possible are {allowed}."
        return Problem(405, said, headers={"allow": allowed})
    return Problem(error.status_code, error.detail)
