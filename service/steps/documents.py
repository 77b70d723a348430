"""What a step leaves behind: documents that fit into an event, and failures in one shape."""

import codecs
from array import array
from collections.abc import Callable, Collection
from itertools import accumulate
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

_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")  # up and down, as signed bytes

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
        if not _is_deep(data):
            return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    return data.decode(_codec(charset), "replace")


def _is_deep(data: bytes) -> bool:
    """Tell whether the JSON ``data`` is nested deeper than DEPTH_MAX; of what is no JSON, either.

    Before it is decoded, and nothing here is done in Python for each value: there may be millions.
    """
    if data.count(b"[") + data.count(b"{") <= DEPTH_MAX:
        return False
    brackets = data.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NO_BRACKETS)
    # Two quotes side by side: what was inside a string stays inside one, what was outside stays outside.
    brackets = b"".join(brackets.replace(b'""', b"").split(b'"')[::2])
    return max(accumulate(array("b", brackets.translate(_STEPS))), default=0) > DEPTH_MAX


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
