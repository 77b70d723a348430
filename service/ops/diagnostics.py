"""What the service says about itself on stderr: a line per fact, no bodies, no secrets, nothing unescaped."""

import logging
import re
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

VALUE_LENGTH_MAX = 500  # characters of one value in one line
TRACEBACK_LENGTH_MAX = 20_000  # characters

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure(form: str, level: str, *, stream: TextIO | None = None) -> None:
    """Send our lines, and those of every library, to ``stream`` (None: stderr).

    ``form``: json, console, or auto (console on a terminal). ``level``: one of LEVELS.
    """
    out = sys.stderr if stream is None else stream
    console = form == "console" or (form == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        cut,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    renderer: list[Processor] = (
        [escape, structlog.dev.ConsoleRenderer(colors=out.isatty())]
        if console
        else [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer()]
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
    return "without completing handshake" not in record.getMessage()


def cut(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Return ``event`` with its long texts cut, their whole length at their end."""
    for key, value in event.items():
        length_max = TRACEBACK_LENGTH_MAX if key == "exception" else VALUE_LENGTH_MAX
        if isinstance(value, str) and len(value) > length_max:
            event[key] = f"{value[:length_max]}… ({len(value)} characters)"
    return event


def escape(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Return ``event`` without control characters, so that no value can forge a line or drive a terminal."""
    for key, value in event.items():
        if isinstance(value, str):
            pattern = _CONTROL_BUT_NEWLINE if key == "exception" else _CONTROL
            event[key] = pattern.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
    return event


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_NEWLINE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
