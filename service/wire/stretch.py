"""A stretch of a run on its way to a client, in any of the forms that a stream has.

Over HTTP a form joins many events into one text of at most ``JOINED_BYTES_MAX`` and says with which seq it
ends; over a WebSocket how much goes at once is up to the connection.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from service.log import Recorded
from service.wire.frames import Frames, lines, server_sent_events

Joined = Iterator[tuple[bytes, int]]


class Stretch(Protocol):
    """Some events of a run, in order; maybe none. ``last_seq``: of the last one, if there is one."""

    @property
    def last_seq(self) -> int: ...  # noqa: D102

    def __len__(self) -> int:
        """Return how many events are in it."""
        ...

    def text_frames(self) -> Frames:
        """Return the events as WebSocket text frames."""
        ...

    def server_sent_events(self) -> Joined:
        """Yield the events as server-sent events."""
        ...

    def lines(self) -> Joined:
        """Yield the events, each with a line break behind it."""
        ...

    def payloads(self) -> Iterator[tuple[int, bytes]]:
        """Yield each event's seq and its bytes, as they are stored."""
        ...


class Rows:
    """A stretch made of events as the log gave them."""

    __slots__ = ("events",)

    def __init__(self, events: Sequence[Recorded] = ()) -> None:
        self.events = events

    def __len__(self) -> int:
        return len(self.events)

    @property
    def last_seq(self) -> int:
        """Return the seq of the last event."""
        return self.events[-1].seq

    def text_frames(self) -> Frames:
        """Return the events as WebSocket text frames."""
        return Frames.of([event.data for event in self.events], [event.seq for event in self.events])

    def server_sent_events(self) -> Joined:
        """Yield the events as server-sent events."""
        return server_sent_events(self.events)

    def lines(self) -> Joined:
        """Yield the events, each with a line break behind it."""
        return lines(self.events)

    def payloads(self) -> Iterator[tuple[int, bytes]]:
        """Yield each event's seq and its bytes."""
        return ((event.seq, event.data) for event in self.events)
