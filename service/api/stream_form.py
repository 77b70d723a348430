"""The two forms that a stream has over HTTP: server-sent events, and one JSON object a line (NDJSON)."""

from re import compile as pattern
from typing import Protocol

import msgspec
from msgspec import Struct

from service.api.problems import Problem
from service.api.stream_control import Message
from service.api.stream_read import Reading
from service.domain.events import RunStatus
from service.wire.stretch import Joined, Stretch

RETRY_S = 3.0  # after which a browser comes back when its connection was lost: what they do anyway
RESTART_S = 5.0  # from the end of a drain to a service that answers again

EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"

_QUALITY = pattern(r"q\s*=\s*([01](?:\.\d{0,3})?)")


class Ended(Struct, frozen=True, rename="camel"):
    """How a run ended: the data of ``event: end``."""

    status: RunStatus
    last_seq: int


class Form(Protocol):
    """How a reading is written. ``no_content``: whether 204 says that there is nothing left to send.

    ``status_is_final``: whether its clients never come back after a status but 200.
    """

    media_type: str
    no_content: bool
    status_is_final: bool
    keepalive: bytes

    def begin(self, reading: Reading) -> bytes:
        """Return what comes before all else, of a reading that has not been read from."""
        ...

    def events(self, stretch: Stretch) -> Joined:
        """Yield the events as they are stored, many in one text, each text with its last seq."""
        ...

    def said(self, message: Message) -> bytes:
        """Return a control message."""
        ...

    def end(self, reading: Reading) -> bytes:
        """Return what follows the last event of a run that is over."""
        ...

    def fault(self, problem: Problem) -> bytes:
        """Return why the stream cannot go on."""
        ...

    def shutdown(self, problem: Problem, *, drain_timeout_s: float) -> bytes:
        """Return what is said when the service ends before the run: within ``drain_timeout_s``, as a rule."""
        ...


class ServerSentEvents:
    """Unnamed events with their seq as id; a last one named ``end``, or ``fault`` where it cannot go on."""

    media_type = EVENT_STREAM
    no_content = True  # the only thing that stops a browser from reconnecting
    status_is_final = True
    keepalive = b":\n\n"

    def begin(self, reading: Reading) -> bytes:
        """Return where it begins, and how soon to come back: an id and a pause, without an event.

        Without the id, a browser that is cut off before its first event would ask for ``tail`` again, or for
        the last n, and these would be others by then. The pause undoes what a shutdown has told it.
        """
        cursor = reading.cursor()
        return _retry(RETRY_S) + (b"\n" if cursor is None else b"id: %d\n\n" % cursor)

    def events(self, stretch: Stretch) -> Joined:
        """Yield the events."""
        return stretch.server_sent_events()

    def said(self, message: Message) -> bytes:
        """Return an event with a name, which no ``onmessage`` sees; a cursor becomes its id."""
        seq = b"" if message.cursor is None else b"id: %d\n" % message.cursor
        return b"event: %b\n%bdata: %b\n\n" % (message.type.encode(), seq, message.data)

    def end(self, reading: Reading) -> bytes:
        """Return ``event: end`` with the run's status."""
        seal = reading.seal
        assert seal is not None
        data = msgspec.json.encode(Ended(seal.status, seal.last_seq))
        # With the seal among the events, an id before it would make a browser that reconnects get it again.
        seq = reading.after if reading.sends_seal() else seal.last_seq
        return b"event: end\nid: %d\ndata: %b\n\n" % (seq, data)

    def fault(self, problem: Problem) -> bytes:
        """Return ``event: fault`` with the problem."""
        return b"event: fault\ndata: %b\n\n" % problem.body()

    def shutdown(self, _: Problem, *, drain_timeout_s: float) -> bytes:
        """Return when to come back, which a browser does by itself: not before there is a service again.

        Until then a proxy that finds nobody behind it answers 502 or 503, and any status but 200 is final to
        an EventSource.
        """
        return _retry(drain_timeout_s + RESTART_S) + b"\n"


class Lines:
    """One event a line, and the body's end after the last; a last line ``{"problem"}`` where it cannot go on.

    An empty line keeps the connection in use.
    """

    media_type = NDJSON
    no_content = False
    status_is_final = False
    keepalive = b"\n"

    def begin(self, _: Reading) -> bytes:
        """Return nothing."""
        return b""

    def events(self, stretch: Stretch) -> Joined:
        """Yield the events."""
        return stretch.lines()

    def said(self, message: Message) -> bytes:
        """Return a line."""
        return message.data + b"\n"

    def end(self, _: Reading) -> bytes:
        """Return nothing."""
        return b""

    def fault(self, problem: Problem) -> bytes:
        """Return a line with the problem."""
        return b'{"problem":%b}\n' % problem.body()

    def shutdown(self, problem: Problem, *, drain_timeout_s: float) -> bytes:  # noqa: ARG002  a browser's
        """Return a line with the problem: without one the run is over and everything has been sent."""
        return self.fault(problem)


def form_for(accept: str | None) -> Form | None:
    """Return the form that an Accept header asks for, None if it takes neither.

    Who names event-stream gets that; any other who takes NDJSON (``*/*``, or no header at all) gets lines.
    """
    qualities = _qualities(accept if accept is not None else "*/*")
    if qualities.get(EVENT_STREAM):
        return ServerSentEvents()
    if next((qualities[each] for each in (NDJSON, "application/*", "*/*") if each in qualities), False):
        return Lines()
    return ServerSentEvents() if qualities.get("text/*") else None


def _retry(after_s: float) -> bytes:
    return b"retry: %d\n" % round(after_s * 1000)


def _qualities(accept: str) -> dict[str, bool]:
    """Return for each media range whether it is wanted: its quality is not 0."""
    found: dict[str, bool] = {}
    for entry in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in entry.split(";"))
        quality = next((given[1] for each in parameters if (given := _QUALITY.fullmatch(each))), "1")
        found[media_range] = found.get(media_range, False) or float(quality) > 0
    return found
