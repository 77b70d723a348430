"""What a caller says of itself, for later: its trace (W3C Trace Context) and its own request id."""

import re
from collections.abc import Iterable

from msgspec import UNSET
from msgspec.structs import replace

from service.domain.events import RunStart
from service.domain.trace import parse_traceparent, parse_tracestate, trace_id_of

Headers = Iterable[tuple[bytes, bytes]]  # of an ASGI scope

# It is written into the diagnostics, where no client may write what it likes, and beside our own.
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def told_by_caller(headers: Headers) -> dict[str, str]:
    """Return what each line of the request's diagnostics carries: trace_id, client_request_id."""
    told = {}
    if (traceparent := _traceparent(headers)) is not None:
        told["trace_id"] = trace_id_of(traceparent)
    given = _values(headers, b"x-request-id")
    if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
        told["client_request_id"] = given[0]
    return told


def traced(start: RunStart, headers: Headers) -> RunStart:
    """Return the header of a run as part of the trace that the request names; as it is, if that names none.

    What the standard calls invalid is ignored, not refused; a trace is never begun here.
    """
    traceparent = _traceparent(headers)
    if traceparent is None:
        return start
    tracestate = parse_tracestate(_values(headers, b"tracestate"))
    return replace(start, traceparent=traceparent, tracestate=UNSET if tracestate is None else tracestate)


def _traceparent(headers: Headers) -> str | None:
    given = _values(headers, b"traceparent")
    return parse_traceparent(given[0]) if len(given) == 1 else None


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]
