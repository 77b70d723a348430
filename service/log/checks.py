"""What must hold of an append before it is stored, and of a row before it is delivered."""

from collections.abc import Sequence
from struct import Struct

from isal.isal_zlib import crc32

from service.errors import AppendTooLarge
from service.log import APPEND_BYTES_MAX, APPEND_EVENTS_MAX, NewEvent

_place = Struct("<qqqq").pack


def check_append(events: Sequence[NewEvent]) -> int:
    """Return the bytes of a batch that one append takes.

    Raises AppendTooLarge, or ValueError for an empty one.
    """
    if not events:
        raise ValueError("an append holds at least one event")
    if len(events) > APPEND_EVENTS_MAX:
        raise AppendTooLarge(f"{len(events)} events in one append, at most {APPEND_EVENTS_MAX}")
    size = len(events[0].data) if len(events) == 1 else sum([len(event.data) for event in events])
    if size > APPEND_BYTES_MAX:
        raise AppendTooLarge(f"{size} bytes in one append, at most {APPEND_BYTES_MAX}")
    return size


def label(name: str) -> int:
    """Return what stands for the name of a stream or a type in a row's checksum."""
    return crc32(name.encode())


def row_checksum(position: int, stream: int, seq: int, type_: int, crc: int, chain: bytes | None) -> int:
    """Return what a row stores to be recognised by: the crc of its data, continued over all the rest.

    ``stream`` and ``type_`` are labels. So damage to a seq, or to the name of a type, is noticed as surely
    as damage to the event itself.
    """
    place = _place(position, stream, seq, type_)
    return crc32(place if chain is None else place + chain, crc)
