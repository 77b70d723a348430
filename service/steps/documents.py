"""What a step leaves behind: documents that fit into an event, and failures in one shape."""

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from service.domain.events import VALUE_BYTES_MAX, Error
from service.errors import Fault
from service.steps import Outcome

Document = dict[str, Any]


def recorded(document: Document, *smaller: Callable[[], Document]) -> Document | None:
    """Return the first of ``smaller`` that fits into an event, None when ``document`` itself does.

    When none fits, the last one is returned: the engine refuses it by its size.
    """
    if _fits(document):
        return None
    candidate = document
    for make in smaller:
        candidate = make()
        if _fits(candidate):
            break
    return candidate


def failed(code: str, message: str, document: Document | None = None) -> Outcome:
    """Return the failed outcome that ``code`` and ``message`` describe."""
    return Outcome("failed", document or {}, error=Error(code, message))


def bad_config(faults: Collection[Fault]) -> Outcome:
    """Return the outcome of a config that was found wrong only once its templates were rendered."""
    return failed("bad_config", "; ".join(f"config{fault.pointer}: {fault.message}" for fault in faults))


def decode_body(data: bytes, charset: str = "utf-8") -> Any:
    """Return JSON as its value and anything else as text; what cannot be decoded is replaced."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    try:
        return data.decode(charset, "replace")
    except LookupError:
        return data.decode("utf-8", "replace")


def _fits(document: Document) -> bool:
    try:
        return len(msgspec.json.encode(document)) <= VALUE_BYTES_MAX
    except (ValueError, TypeError, OverflowError, RecursionError):
        return False
