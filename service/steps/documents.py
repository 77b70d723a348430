"""What a step leaves behind: documents that fit into an event, and failures in one shape."""

import codecs
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from service.domain.events import UNENCODABLE, VALUE_BYTES_MAX, Error
from service.errors import Fault
from service.steps import Outcome

DEPTH_MAX = 200  # levels of JSON from outside: whoever encodes or compares it recurses

# Those of the WHATWG's Encoding Standard that Python has, by its names for them.
CHARSETS = frozenset({
    "ascii", "big5", "big5hkscs", "cp866", "cp874", "cp932", "cp949", "euc_jp", "euc_kr", "gb18030", "gb2312",
    "gbk", "iso2022_jp", "koi8-r", "koi8-u", "mac-cyrillic", "mac-roman", "shift_jis", "utf-16", "utf-16-be",
    "utf-16-le", "utf-8", "utf-8-sig", *(f"iso8859-{part}" for part in range(1, 17) if part != 12),
    *(f"cp125{page}" for page in range(9)),
})  # fmt: skip

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
    """Return JSON as its value and anything else as text; what cannot be decoded is replaced.

    JSON that is nested deeper than DEPTH_MAX counts as text; a charset that is not of CHARSETS as UTF-8.
    """
    try:
        value = msgspec.json.decode(data)
        if data.count(b"[") + data.count(b"{") <= DEPTH_MAX or not _is_deep(value):
            return value
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    return data.decode(_codec(charset), "replace")


def _is_deep(value: Any) -> bool:
    """Tell whether ``value`` is nested deeper than DEPTH_MAX, level by level: recursion would be too deep."""
    level = [value]
    for _ in range(DEPTH_MAX):
        members = (each.values() if isinstance(each, dict) else each for each in level)
        level = [member for each in members for member in each if isinstance(member, dict | list)]
        if not level:
            return False
    return True


def _codec(charset: str) -> str:
    # Python has codecs that are no charsets: some take minutes, some yield what UTF-8 cannot say.
    try:
        name = codecs.lookup(charset).name
    except (LookupError, ValueError):
        return "utf-8"
    return name if name in CHARSETS else "utf-8"


def _fits(document: Document) -> bool:
    try:
        return len(msgspec.json.encode(document)) <= VALUE_BYTES_MAX
    except UNENCODABLE:
        return False
