"""Whether the service lives, whether it can do its work, and its figures."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from litestar import Response, get
from msgspec import UNSET, Struct, UnsetType

from service.api.context import Context, context_of
from service.api.problems import Problem, Refused
from service.api.requests import AnyRequest, answer
from service.api.rights import PUBLIC, needs
from service.api.schemas import Health
from service.errors import LogUnavailable, NotCaughtUp

CAUGHT_UP_S = 0.5  # then the lists count as behind; probes wait for an answer about a second


def _version() -> str:
    try:
        return version("tailrace")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"


VERSION = _version()


class Reason(Struct, frozen=True):
    """Why the service is not ready. ``code`` is for programs and stays; ``done`` of ``total``: events."""

    code: str
    text: str
    done: int | UnsetType = UNSET
    total: int | UnsetType = UNSET


@get("/health", opt=needs(PUBLIC))
async def health() -> Response[bytes]:
    """Answer as long as the process lives."""
    return answer(Health("ok", VERSION))


@get("/ready", opt=needs(PUBLIC))
async def ready(request: AnyRequest) -> Response[bytes]:
    """Answer 200 when runs are accepted and lists are up to date, else 503 with every reason."""
    reasons = await _reasons(context_of(request))
    if reasons:
        said = f"Not ready: {'; '.join(reason.text for reason in reasons)}."
        extra: dict[str, Any] = {"reasons": reasons}
        raise Refused(Problem(503, said, extra=extra, headers={"retry-after": "1"}))
    return answer(Health("ready", VERSION))


@get("/metrics", opt=needs("metrics"))
async def metrics(request: AnyRequest) -> Response[bytes]:
    """Return the figures for Prometheus, as text or as OpenMetrics."""
    text, media_type = await context_of(request).metrics(request.headers.get("accept", ""))
    if media_type.startswith("text/"):
        media_type = media_type.replace("; charset=utf-8", "")  # litestar adds it to a text
    return Response(text, media_type=media_type, headers={"cache-control": "no-store", "vary": "accept"})


async def _reasons(context: Context) -> list[Reason]:
    reasons = []
    if context.closing.is_set():
        reasons.append(Reason("draining", "the service is shutting down"))
    unavailable = context.unavailable()
    if context.min_free_bytes and context.free_bytes() < context.min_free_bytes:
        said = f"less than {context.min_free_bytes} bytes are free beside the log"
        reasons.append(Reason("disk_full", said))
    try:
        await context.projections.caught_up(CAUGHT_UP_S)
    except NotCaughtUp:
        reasons.append(_behind(context))
    except LogUnavailable as error:
        unavailable = unavailable or error.reason
    if unavailable:
        reasons.append(Reason("log_unavailable", f"the log is unavailable: {unavailable}"))
    if not context.recovered():
        reasons.append(Reason("recovering", "unfinished runs are not taken up yet"))
    return reasons


def _behind(context: Context) -> Reason:
    making = context.projections.making
    if making is None:
        return Reason("projection_behind", "the lists are behind the log")
    said = f"the lists are made from the log: {making.done} of {making.events} events"
    return Reason("views_rebuilding", said, making.done, making.events)
