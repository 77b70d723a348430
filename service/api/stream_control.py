"""What a stream says about itself when asked with ``control=1``: shaped like events, but without a seq."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import ClassVar, Literal, NamedTuple

import msgspec
from msgspec import Struct

from service.api.stream_read import Reading
from service.domain.events import RunStatus
from service.log import Recorded

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
    events: Sequence[Recorded]


class _Envelope(Struct, frozen=True, rename="camel"):
    run_id: str
    type: str
    payload: Control


async def parts_of(reading: Reading) -> AsyncGenerator[Part, None]:
    """Yield what ``reading`` yields, with control messages if it wants them. Raises what that raises."""
    if reading.control:
        async with aclosing(_narrated(reading)) as parts:
            async for part in parts:
                yield part
    else:
        async with aclosing(reading.pages()) as pages:
            async for page in pages:
                yield Part((), page)


async def _narrated(reading: Reading) -> AsyncGenerator[Part, None]:
    told = reading.after
    caught_up = False
    said = [_message(reading, Hello(reading.status, reading.last_seq, told if told >= 0 else None))]
    async with aclosing(reading.pages()) as pages:
        async for page in pages:
            yield Part(said, page)
            said = []
            told = page[-1].seq if page else told
            if not caught_up and reading.after >= reading.head:
                caught_up, told = True, reading.after
                yield Part([_message(reading, CaughtUp(told))], ())
            elif reading.after - told >= BOOKMARK_EVENTS:
                told = reading.after
                yield Part([_message(reading, Bookmark(told))], ())
    if not caught_up:
        said.append(_message(reading, CaughtUp(reading.after)))
    seal = reading.seal
    assert seal is not None
    yield Part([*said, _message(reading, End(seal.status, seal.last_seq, reading.hash.hex()))], ())


def _message(reading: Reading, control: Control) -> Message:
    data = msgspec.json.encode(_Envelope(reading.run_id, control.type, control))
    return Message(control.type, data, getattr(control, "seq", None))
