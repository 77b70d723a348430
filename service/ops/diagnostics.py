"""What the service says about itself on stderr: a line per fact, no bodies, no secrets, nothing unescaped."""

import json
import logging
import math
import re
import sys
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, TextIO
from urllib.parse import quote, unquote

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

VALUE_LENGTH_MAX = 500  # characters of one value in one line
TRACEBACK_LENGTH_MAX = 20_000  # characters
ITEMS_MAX = 50  # of one list or mapping in one line
NUMBER_BITS_MAX = 1_000  # Python refuses to write very long numbers
DEPTH_MAX = 5  # of lists and mappings in each other
SECRET_LENGTH_MIN = 4  # a shorter one would be found in every word

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_LONG = ("exception", "stack")  # keys of texts that have several lines
# Whatever looks like one of our credentials, or a token of an issuer: somebody may put one into an address.
_CREDENTIAL = re.compile(
    r"trk_[A-Za-z0-9_-]{8,}"
    r"|tailrace\.ticket\.[A-Za-z0-9_-]+"
    r"|eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)+"  # a JSON Web Token; our sessions are such
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def configure(form: str, level: str, *, stream: TextIO | None = None, secrets: Iterable[str] = ()) -> None:
    """Send our lines, and those of every library, to ``stream`` (None: stderr).

    ``form``: json, console, or auto (console on a terminal). ``level``: one of LEVELS. ``secrets`` are
    replaced by asterisks wherever they stand in a line, and so is what looks like a credential.
    """
    out = sys.stderr if stream is None else stream
    console = form == "console" or (form == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        Plain(secrets),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    renderer: list[Processor] = (
        [escape, structlog.dev.ConsoleRenderer(colors=out.isatty())]
        if console
        else [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer(_json)]
    )
    lines = logging.StreamHandler(out)
    lines.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    lines.addFilter(is_worth_a_line)
    root = logging.getLogger()
    root.handlers[:] = [lines]
    root.setLevel(LEVELS[level])
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access", "asyncio"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(max(LEVELS[level], logging.WARNING))


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Drop the error that uvicorn's sans-I/O WebSocket reports for each refusal it has just sent in full."""
    try:
        return "without completing handshake" not in record.getMessage()
    except (TypeError, ValueError, KeyError):  # a library's own mistake must not become that of its caller
        record.msg, record.args = f"{record.msg!r} {record.args!r}", ()
        return True


class Plain:
    """Makes of each line texts, numbers, lists and mappings that are bounded and hold no secret."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spelt = {way for secret in secrets if len(secret) >= SECRET_LENGTH_MIN for way in _spellings(secret)}
        longest_first = sorted(spelt, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if spelt else None

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        """Return ``event`` with plain values; what structlog adds for itself stays."""
        for key, value in event.items():
            if not key.startswith("_"):
                event[key] = self._plain(value, TRACEBACK_LENGTH_MAX if key in _LONG else VALUE_LENGTH_MAX)
        return event

    def _plain(self, value: Any, length_max: int, depth: int = 0) -> Any:
        if isinstance(value, str):
            return self._text(value, length_max)
        if _has_json(value):
            return value
        match value:
            case Mapping() if depth < DEPTH_MAX:
                pairs = list(value.items())[:ITEMS_MAX]
                plain = {
                    self._text(str(key), length_max): self._plain(item, length_max, depth + 1)
                    for key, item in pairs
                }
                return plain | _more(len(value))
            case list() | tuple() | AbstractSet() if depth < DEPTH_MAX:
                found = [self._plain(item, length_max, depth + 1) for item in list(value)[:ITEMS_MAX]]
                return [*found, *_more(len(value))]
            case _:
                return self._text(_repr(value), length_max)

    def _text(self, text: str, length_max: int) -> str:
        """Return a text without secrets, cut if it is long: first masked, for half a secret is one, too."""
        text = self._masked(text)
        if "%" in text and _CREDENTIAL.search(decoded := unquote(text)):
            text = self._masked(decoded)
        return text if len(text) <= length_max else f"{text[:length_max]}… ({len(text)} characters)"

    def _masked(self, text: str) -> str:
        if self._secrets is not None:
            text = self._secrets.sub("***", text)
        return _CREDENTIAL.sub("***", text)


def escape(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Return ``event`` without control characters, so that nothing can forge a line or drive a terminal.

    Only a traceback has several lines, and they are indented: none can pass for one of ours.
    """
    escaped = {}
    for key, value in event.items():
        if key in _LONG and isinstance(value, str):
            escaped[key] = "\n".join(f"  {_escaped(line)}" for line in value.split("\n"))
        else:
            escaped[_escaped(key)] = value if key.startswith("_") else _escaped(value)
    return escaped


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
        case dict():
            return {_escaped(key): _escaped(item) for key, item in value.items()}
        case list():
            return [_escaped(item) for item in value]
        case _:
            return value


def _json(event: EventDict, **_: Any) -> str:
    return json.dumps(event).replace("\x7f", "\\u007f")  # the one control character that it leaves as it is


def _spellings(secret: str) -> set[str]:
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe="")}


def _has_json(value: object) -> bool:
    match value:
        case None | bool():
            return True
        case int():
            return value.bit_length() < NUMBER_BITS_MAX
        case float():
            return math.isfinite(value)
        case _:
            return False


def _more(count: int) -> dict[str, str]:
    return {f"… ({count} items)": ""} if count > ITEMS_MAX else {}


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001  a line is written, whatever it is about
        return f"<{type(value).__name__}: {type(error).__name__}>"
