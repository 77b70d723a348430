"""What a request says, checked before anything is done: each fault with its place, nothing ignored."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar import Request, Response

from service.domain.events import format_time, parse_time
from service.domain.fields import child
from service.domain.wellformed import check_json
from service.errors import Fault, InvalidInput, NotFound

ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
RESERVED_IDS = ("runs", "validate", "diff", "events")  # they are parts of our own paths
QUERY_PARAMETERS_MAX = 32
LIMIT_DEFAULT = 100  # rows of a page
LIMIT_MAX = 1_000

AnyRequest = Request[Any, Any, Any]
Check = Callable[[str], Any]


def answer(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """Return ``document`` as a JSON response."""
    return Response(
        msgspec.json.encode(document),
        status_code=status,
        headers=dict(headers or {}),
        media_type="application/json",
    )


def checked_id(text: str, what: str) -> str:
    """Return an id from a path. Raises NotFound for one that nothing can have."""
    if not ID.fullmatch(text):
        raise NotFound(what, text[:128])
    return text


def id_fault(value: object, pointer: str) -> Fault | None:
    """Return what is wrong with an id that a client chose, None if nothing is."""
    if not isinstance(value, str) or not ID.fullmatch(value):
        return Fault(pointer, "must be 1 to 128 letters, digits, _ or -")
    if value in RESERVED_IDS:
        return Fault(pointer, f"{value!r} is reserved, like {', '.join(RESERVED_IDS)}")
    return None


async def read_object(request: AnyRequest) -> dict[str, Any]:
    """Return the body, a JSON object; no body is an empty one. Raises InvalidInput."""
    body = await request.body()
    if not body:
        return {}
    try:
        document = msgspec.json.decode(body)
    except RecursionError:
        raise InvalidInput([Fault("", "the body is nested too deeply")]) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidInput([Fault("", f"the body is not JSON: {error}")]) from None
    if not isinstance(document, dict):
        raise InvalidInput([Fault("", "the body must be a JSON object")])
    if faults := check_json(document, "", bytes_max=len(body) * 8):  # its size is the gate's business
        raise InvalidInput(faults)
    return document


def unknown_keys(document: Mapping[str, Any], known: tuple[str, ...]) -> list[Fault]:
    """Return a fault for each key of ``document`` that is not known."""
    return [
        Fault(child("", key), f"is unknown; known are {', '.join(known)}")
        for key in document
        if key not in known
    ]


def read_query(request: AnyRequest, **known: Check) -> dict[str, Any]:
    """Return the query parameters that were given, each through its check.

    A check returns the value, or raises ValueError saying what would be right. Raises InvalidInput with
    every fault at ``/query/NAME``.
    """
    values, faults = parse_query(request.scope["query_string"], known)
    if faults:
        raise InvalidInput(faults)
    return values


def parse_query(query_string: bytes, known: Mapping[str, Check]) -> tuple[dict[str, Any], list[Fault]]:
    """Return the parameters through their checks, as ``read_query`` does, and every fault."""
    faults: list[Fault] = []
    values: dict[str, Any] = {}
    for name, text in _parameters(query_string, faults):
        place = child("/query", name[:64])
        if name not in known:
            listed = f"known are {', '.join(known)}" if known else "this address takes none"
            faults.append(Fault(place, f"is unknown; {listed}"))
        elif name in values:
            faults.append(Fault(place, "is given twice"))
        else:
            try:
                values[name] = known[name](text)
            except ValueError as error:
                values[name] = None
                faults.append(Fault(place, str(error)))
    return values, faults


def _parameters(query_string: bytes, faults: list[Fault]) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_PARAMETERS_MAX,
        )
    except ValueError:
        faults.append(Fault("/query", f"must be UTF-8 with at most {QUERY_PARAMETERS_MAX} parameters"))
        return []


# Checks of query parameters.


def as_limit(text: str) -> int:
    """Return the rows of a page."""
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= LIMIT_MAX:
        raise ValueError(f"must be a whole number from 1 to {LIMIT_MAX}")
    return int(text)


def as_id(text: str) -> str:
    """Return an id."""
    if not ID.fullmatch(text):
        raise ValueError("must be 1 to 128 letters, digits, _ or -")
    return text


def one_of(*words: str) -> Check:
    """Return a check that takes one of ``words``."""

    def check(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return check


def as_time(text: str) -> str:
    """Return a time as events carry it, from any RFC 3339 time."""
    # In a query a plus sign stands for a space.
    plain = text.replace(" ", "+") if re.search(r" \d\d:\d\d$", text) and "T" in text else text
    try:
        zoned = datetime.fromisoformat(plain).tzinfo is not None
        time = format_time(parse_time(plain))
    except (ValueError, OverflowError, OSError):
        zoned, time = False, ""
    if not zoned:
        raise ValueError("must be an RFC 3339 time such as 2026-01-31T12:00:00Z")
    return time
