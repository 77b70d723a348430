"""Whether the service lives, whether it can do its work, and its figures."""

from importlib.metadata import PackageNotFoundError, version

from litestar import Response, get

from service.api.context import Context, context_of
from service.api.problems import Problem, Refused
from service.api.requests import AnyRequest, answer
from service.api.rights import PUBLIC, needs
from service.api.schemas import Health
from service.errors import LogUnavailable, NotCaughtUp


def _version() -> str:
    try:
        return version("tailrace")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"


VERSION = _version()


@get("/health", opt=needs(PUBLIC))
async def health() -> Response[bytes]:
    """Answer as long as the process lives."""
    return answer(Health("ok", VERSION))


@get("/ready", opt=needs(PUBLIC))
async def ready(request: AnyRequest) -> Response[bytes]:
    """Answer 200 when runs are accepted and lists are up to date, else 503 with every reason."""
    reasons = await _reasons(context_of(request))
    if reasons:
        said = f"Not ready: {'; '.join(reasons)}."
        raise Refused(Problem(503, said, extra={"reasons": reasons}, headers={"retry-after": "1"}))
    return answer(Health("ready", VERSION))


@get("/metrics", opt=needs("metrics"))
async def metrics(request: AnyRequest) -> Response[bytes]:
    """Return the figures for Prometheus, as text or as OpenMetrics."""
    text, media_type = await context_of(request).metrics(request.headers.get("accept", ""))
    if media_type.startswith("text/"):
        media_type = media_type.replace("; charset=utf-8", "")  # litestar adds it to a text
    return Response(text, media_type=media_type, headers={"cache-control": "no-store", "vary": "accept"})


async def _reasons(context: Context) -> list[str]:
    reasons = []
    if context.closing.is_set():
        reasons.append("the service is shutting down")
    if unavailable := context.unavailable():
        reasons.append(f"the log is unavailable: {unavailable}")
    if context.min_free_bytes and context.free_bytes() < context.min_free_bytes:
        reasons.append(f"less than {context.min_free_bytes} bytes are free beside the log")
    try:
        await context.projections.caught_up()
    except NotCaughtUp:
        reasons.append("the lists are behind the log")
    except LogUnavailable as error:
        if not unavailable:
            reasons.append(f"the log is unavailable: {error.reason}")
    return reasons
