"""Errors as RFC 9457 problem+json: the one table from our errors to HTTP statuses and close codes."""

from collections.abc import Sequence
from http import HTTPStatus
from math import ceil
from typing import Any

import msgspec
from msgspec import Struct

from service.errors import (
    AppendTooLarge,
    Conflict,
    Damaged,
    Fault,
    Forbidden,
    InvalidInput,
    LogUnavailable,
    NotCaughtUp,
    NotFound,
    TailraceError,
    Throttled,
    Unauthenticated,
    WrongExpectedSeq,
)

MEDIA_TYPE = "application/problem+json"
CHALLENGE = 'Bearer realm="tailrace"'  # RFC 6750 §3
FAULTS_MAX = 500  # that one problem tells
CLOSE_REASON_BYTES_MAX = 123  # RFC 6455 §5.5


class Problem(Struct, frozen=True):
    """A problem document: ``errors`` lists faults with their JSON pointer, ``extra`` adds members."""

    status: int
    detail: str
    errors: Sequence[Fault] = ()
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}
    close: int | None = None  # the close code, where the status alone does not tell

    def body(self) -> bytes:
        """Return the problem as JSON (RFC 9457 members first)."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        assert not document.keys() & self.extra.keys(), "an extension must not hide a member of RFC 9457"
        if self.errors:
            document["errors"] = list(self.errors)
        return msgspec.json.encode(document | self.extra)

    @property
    def close_code(self) -> int:
        """Return the WebSocket close code that stands for this status."""
        return self.close or {500: 1011, 503: 1013}.get(self.status, 4000 + self.status)

    def reason(self) -> str:
        """Return what a close frame has room for: the faults if there are any, else the detail."""
        said = "; ".join(f"{fault.pointer} {fault.message}" for fault in self.errors) or self.detail
        return said.encode(errors="replace")[:CLOSE_REASON_BYTES_MAX].decode(errors="ignore")


class Refused(TailraceError):
    """A request that HTTP has its own words for: too large, not now."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def problem_of(error: Exception) -> Problem:  # noqa: PLR0911  one line per kind of error is the table
    """Return the problem that ``error`` is to a client; an unknown error is a bare 500."""
    match error:
        case Refused():
            return error.problem
        case InvalidInput():
            return Problem(400, error.detail, errors=error.faults[:FAULTS_MAX])
        case NotFound():
            return Problem(404, str(error))
        case Conflict() | WrongExpectedSeq():
            return Problem(409, str(error), extra=dict(getattr(error, "data", {})))
        case Unauthenticated() | Forbidden() | Throttled():
            return _refusal(error)
        case AppendTooLarge():
            return Problem(413, str(error))
        case NotCaughtUp():
            return Problem(503, str(error) or "The lists are behind the log.", headers={"retry-after": "1"})
        case LogUnavailable():
            outcome = "unknown" if error.stored is None else "not stored"
            return Problem(
                503, f"The log is unavailable: {error.reason}.", extra={"outcome": outcome},
                headers={"retry-after": "1"},
            )  # fmt: skip
        case Damaged():
            return Problem(500, str(error), extra=_place(error), close=4500)
        case _:
            return Problem(500, "Something went wrong on our side; the diagnostics know more.")


def _place(damaged: Damaged) -> dict[str, Any]:
    """Return where it is: readers of one run go on behind the seq, those of the log behind the position."""
    place: dict[str, Any] = {"stream": damaged.stream, "seq": damaged.seq} if damaged.stream else {}
    return place if damaged.position is None else place | {"position": damaged.position}


def _refusal(error: Unauthenticated | Forbidden | Throttled) -> Problem:
    match error:
        case Unauthenticated():
            return Problem(401, str(error), headers={"www-authenticate": CHALLENGE})
        case Forbidden(right=right):
            challenge = f'{CHALLENGE}, error="insufficient_scope", scope="{right}"'
            return Problem(403, str(error), extra={"right": right}, headers={"www-authenticate": challenge})
        case Throttled():
            return Problem(429, str(error), headers={"retry-after": str(max(1, ceil(error.retry_after_s)))})
