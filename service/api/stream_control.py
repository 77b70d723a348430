"""What a stream says about itself when asked with ``control=1``: shaped like events, but without a seq."""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import msgspec
from msgspec import Struct

from service.api.stream_read import Reading
from service.domain.events import RunStatus
from service.wire.stretch import Rows, Stretch

BOOKMARK_EVENTS = 1_000  # hidden in a row: one bookmark, so that a client who comes back skips them


class Control(Struct, frozen=True, rename="camel"):
    """What a control message says; ``type`` is its label in the envelope."""

    type: ClassVar[str]


class Hello(Control, frozen=True):
    """The first message: how the run stands, and behind which seq the stream begins (null: at the start)."""

    type: ClassVar[str] = "stream.hello"
    status: Literal["queued", "running"] | RunStatus
    last_seq: int
    after: int | None


class CaughtUp(Control, frozen=True):
    """All that was there at the hello has been sent; what comes now is new. ``seq`` is a valid cursor."""

    type: ClassVar[str] = "stream.caught_up"
    seq: int


class Bookmark(Control, frozen=True):
    """The filter has hidden BOOKMARK_EVENTS or more in a row, up to ``seq``: a valid cursor."""

    type: ClassVar[str] = "stream.bookmark"
    seq: int


class End(Control, frozen=True):
    """The last message: the run is over and all is sent. ``hash`` is the run's chain head, as hex."""

    type: ClassVar[str] = "stream.end"
    status: RunStatus
    last_seq: int
    hash: str


CONTROLS: tuple[type[Control], ...] = (Hello, CaughtUp, Bookmark, End)


class Message(NamedTuple):
    """A control message on its way; ``cursor``: behind which seq a client may come back, if it says that."""

    type: str
    data: bytes
    cursor: int | None


class Part(NamedTuple):
    """What is sent next: control messages, then events."""

    said: Sequence[Message]
    events: Stretch


NOTHING = Rows()


class _Envelope(Struct, frozen=True, rename="camel"):
    run_id: str
    type: str
    payload: Control


class Narrator:
    """Gives what a reading gives, with control messages in between if the reading wants them."""

    __slots__ = ("_caught_up", "_ended", "_said", "_told", "reading")

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._told = reading.after  # what the client knows to lie behind it
        self._caught_up = self._ended = not reading.control
        self._said: list[Message] = []
        if reading.control:
            hello = Hello(reading.status, reading.last_seq, reading.after if reading.after >= 0 else None)
            self._said = [_message(reading, hello)]

    @property
    def bookmarks(self) -> bool:
        """Tell whether there may be something to say about events that are not sent."""
        return self.reading.control and not self.reading.where.every_step_event

    def moved_to(self, seq: int) -> None:
        """Go on behind ``seq``: the client has been given everything up to there in another way."""
        self.reading.after = self._told = seq

    async def next(self) -> Part | None:
        """Return what is sent next; None at the live edge and when all is said. Raises as reading does."""
        events = await self.reading.next()
        if not self.reading.control:
            return None if events is None else Part((), events)
        if events is None:
            self._conclude()
        said, self._said = self._said, []
        if events is not None:
            self._observe(events)
        elif not said:
            return None
        return Part(said, events or NOTHING)

    def _observe(self, events: Stretch) -> None:
        """Take note of what the client is about to get, and prepare what follows it."""
        reading = self.reading
        if not self._caught_up and reading.after >= reading.head:
            self._say_caught_up()
        elif events:
            self._told = events.last_seq
        elif reading.after - self._told >= BOOKMARK_EVENTS:
            self._told = reading.after
            self._said.append(_message(reading, Bookmark(self._told)))

    def _conclude(self) -> None:
        reading = self.reading
        if not self._caught_up and reading.after >= reading.head:
            self._say_caught_up()
        seal = reading.seal
        if seal is not None and not self._ended:
            self._ended = True
            self._said.append(_message(reading, End(seal.status, seal.last_seq, reading.hash.hex())))

    def _say_caught_up(self) -> None:
        self._caught_up, self._told = True, self.reading.after
        self._said.append(_message(self.reading, CaughtUp(self._told)))


def _message(reading: Reading, control: Control) -> Message:
    data = msgspec.json.encode(_Envelope(reading.run_id, control.type, control))
    return Message(control.type, data, getattr(control, "seq", None))
