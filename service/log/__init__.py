"""The Log: streams of opaque events, appended once, read for ever.

Knows bytes, seqs and positions; nothing of what an event means.
"""

from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import Protocol

from msgspec import Struct

APPEND_EVENTS_MAX = 1_000
APPEND_BYTES_MAX = 768 * 1024  # a frame stays under 1 MiB on any wire


class NewEvent(Struct, frozen=True):
    """An event on its way into the log: its label and its bytes."""

    type: str
    data: bytes


class Recorded(Struct, frozen=True, gc=False):
    """An event as the log keeps it. ``seq`` has no gap within its stream; ``position`` is opaque.

    ``crc`` is CRC-32 (zlib) of ``data``, already checked. ``chain`` is the stream's chain head after this
    event; only the last event of an append carries it, the others have ``b""``.
    """

    stream: str
    seq: int
    position: int
    type: str
    data: bytes
    crc: int
    chain: bytes = b""


class Appended(Struct, frozen=True):
    """Where the last event of an append stands, and the stream's chain head after it."""

    seq: int
    position: int
    chain: bytes


def chain_seed(stream: str) -> bytes:
    """Return the head of an empty stream's chain."""
    return sha256(stream.encode()).digest()


def chain_next(head: bytes, data: bytes) -> bytes:
    """Return the chain head after one more event: SHA-256 of the previous head and the event's bytes."""
    return sha256(head + data).digest()


class Log(Protocol):
    """Four verbs. What follows holds for every implementation; tests/log/contract.py proves it.

    1. ``append`` is all or nothing, goes to one stream, and is durable when it returns.
    2. An append whose answer was lost is repeated with the same expected seq: at most one of the two
       is accepted. A commit that raised may still have happened: the log is reopened and read before
       the answer is given.
    3. What a read has shown stays, and positions become visible in their order.
    4. ``wait`` is level-triggered, may return early, carries no data, and wakes only after the commit.
    5. Nobody needs one transaction over the log and something else.
    6. An append is a batch of at most ``APPEND_EVENTS_MAX`` events and ``APPEND_BYTES_MAX`` bytes, with
       one in flight per stream.
    7. Each stream carries the head of a SHA-256 chain, seeded with its name, updated with each append
       (``chain_next``); anyone who reads a stream from its start can compute it again.
    8. Types are labels that can be selected by; the log gives them no meaning.
    """

    async def append(self, stream: str, events: Sequence[NewEvent], *, expected_seq: int) -> Appended:
        """Append ``events`` after ``expected_seq`` (-1: the stream is new) and return once durable.

        Raises WrongExpectedSeq, AppendTooLarge, LogUnavailable.
        """
        ...

    async def read(self, stream: str, *, after: int, limit: int) -> Sequence[Recorded]:
        """Return up to ``limit`` events with seq > ``after``, in order; empty at the end or if unknown.

        A page may be shorter than what is there: only an empty one is the end.
        An event whose crc does not fit ends the page before it; asked for as the first, it raises
        Damaged. Raises LogUnavailable.
        """
        ...

    async def read_all(
        self, *, after: int, limit: int, types: Collection[str] | None = None
    ) -> Sequence[Recorded]:
        """Return up to ``limit`` events with position > ``after``, of ``types`` if given, in order.

        Damage is treated as in ``read``. Raises Damaged with its position, LogUnavailable.
        """
        ...

    async def wait(self, stream: str | None, *, after: int, types: Collection[str] | None = None) -> int:
        """Return the last seq of ``stream`` (or, without one, the last position) once it is above ``after``.

        May return early with a value not above ``after``; ask again. With ``stream=None``, ``types``
        lets the caller sleep through appends that hold none of them. ``wait(None, after=-1)`` answers
        at once with the log's head (0: empty); ``wait(stream, after=-2)`` with the stream's (-1: unknown).
        """
        ...
