"""W3C Trace Context, level 1: which trace of the caller's a run belongs to, handed on to what its steps ask.

https://www.w3.org/TR/trace-context/
"""

import re
from hashlib import sha256

TRACESTATE_BYTES_MAX = 512

# A later version may go on behind what this one knows.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_PRINTABLE = re.compile(r"[\x20-\x7e]+")
_SAMPLED = 0x01  # the only flag whose meaning every version shares


def parse_traceparent(header: str) -> str | None:
    """Return a traceparent as version 00 writes it, None for one that the standard says to ignore."""
    found = _TRACEPARENT.fullmatch(header.strip(" \t"))
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or set(trace_id) == {"0"} or set(parent_id) == {"0"}:
        return None
    if version == "00":
        return None if more else f"00-{trace_id}-{parent_id}-{flags}"
    return f"00-{trace_id}-{parent_id}-{int(flags, 16) & _SAMPLED:02x}"


def parse_tracestate(headers: list[str]) -> str | None:
    """Return the vendors' list of a request, None if there is none or it is more than we keep."""
    joined = ",".join(each for header in headers if (each := header.strip(" \t")))
    return joined if len(joined) <= TRACESTATE_BYTES_MAX and _PRINTABLE.fullmatch(joined) else None


def trace_id_of(traceparent: str) -> str:
    """Return the id that all of one trace share."""
    return traceparent[3:35]


def child_of(traceparent: str, run_id: str, step_id: str, attempt: int) -> str:
    """Return the traceparent of one attempt: the same trace, and the same new parent whenever it is asked."""
    version, trace_id, _, flags = traceparent.split("-")
    span = sha256(f"{run_id}/{step_id}/{attempt}".encode()).hexdigest()[:16]
    if set(span) == {"0"}:  # the one id that is none
        span = f"{1:016x}"
    return f"{version}-{trace_id}-{span}-{flags}"
