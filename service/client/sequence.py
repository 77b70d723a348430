"""What has been received of a run, and whether it can be true and whole. Takes bytes; knows no connection."""

import json
from hashlib import sha256
from typing import Any, NamedTuple

from service.client.errors import Inconsistent


class Event(NamedTuple):
    """One event of a run; ``data`` is its JSON, byte for byte as it was recorded."""

    seq: int
    type: str
    payload: dict[str, Any]
    timestamp: str
    data: bytes


class Sequence:
    """The events of one watch, over all its connections.

    ``cursor`` is what the next connection asks to come after: a seq (-1: the start), or what the caller said
    until the service has told its seq. ``ends``: the run's header and seal are asked for, too. ``filtered``:
    other events may be hidden; if not, each event's seq must be one above the last one's.
    ``caught_up``: all that was there when the newest connection began has come, and the run went on then.
    """

    def __init__(self, run_id: str, cursor: int | str, *, ends: bool, filtered: bool) -> None:
        self.cursor = cursor
        self.received = 0
        self.caught_up = False
        self.status: str | None = None
        self.last_seq: int | None = None
        self.verified = False
        self._first = 0 if ends else 1
        self._filtered = filtered
        self._begin: int | None = None  # behind which seq the first connection began
        self._over = False
        whole = cursor == -1 and ends and not filtered
        self._chain = sha256(f"run/{run_id}".encode()).digest() if whole else None

    @property
    def summary(self) -> str:
        """Return how much has come of how much there is."""
        if self.last_seq is None:
            return f"{self.received} events so far"
        return (
            f"{self.received} of {self._total(self.last_seq)} events"
            + (f" after event {self._begin}" if self._begin and self._begin > 0 else "")
            + (" passed the filter" if self._filtered else "")
            + (", hash verified" if self.verified else "")
        )

    def take(self, data: bytes) -> Event | None:
        """Return the event that a message is, None if it is about the stream. Raises Inconsistent."""
        try:
            message = json.loads(data)
            if "seq" not in message:
                self._told(message["type"], message["payload"])
                return None
            event = Event(message["seq"], message["type"], message["payload"], message["timestamp"], data)
            self._check(event.seq)
        except (ValueError, KeyError, TypeError) as error:
            raise Inconsistent(f"this is no event of a run: {data[:200]!r}") from error
        self.cursor = event.seq
        self.received += 1
        if self._chain is not None:
            self._chain = sha256(self._chain + data).digest()
        return event

    def _check(self, seq: int) -> None:
        if not isinstance(self.cursor, int):
            raise Inconsistent(f"event {seq} came before the stream had said where it begins")
        if seq <= self.cursor:
            raise Inconsistent(f"event {seq} came again, after event {self.cursor}")
        due = max(self.cursor + 1, self._first)
        if not self._filtered and seq != due:
            raise Inconsistent(f"event {seq} came where event {due} was due")

    def _told(self, type_: str, payload: dict[str, Any]) -> None:
        match type_:
            case "stream.hello":
                self._began(-1 if payload["after"] is None else payload["after"])
                self._over = payload["status"] not in {"queued", "running"}
            case "stream.bookmark":
                self._skip(payload["seq"])
            case "stream.caught_up":
                self._skip(payload["seq"])
                self.caught_up = not self._over
            case "stream.end":
                self._ended(payload["lastSeq"], payload["hash"])
                self.status = payload["status"]

    def _began(self, after: int) -> None:
        if isinstance(self.cursor, int) and after != self.cursor:
            raise Inconsistent(f"the stream began after event {after} where event {self.cursor + 1} was due")
        self.cursor = after
        self.caught_up = False
        if self._begin is None:
            self._begin = after

    def _skip(self, seq: int) -> None:
        """Go on behind what the filter has hidden; without a filter only what has come moves the cursor."""
        if self._filtered:
            self.cursor = max(int(self.cursor), seq)

    def _ended(self, last_seq: int, head: str) -> None:
        """Prove that nothing is missing: the seal tells the last seq, and the hash covers every byte."""
        total = self._total(last_seq)
        if not self._filtered and self.received != total:
            raise Inconsistent(f"the run is over, but {self.received} of {total} events came")
        if self._chain is not None:
            if self._chain.hex() != head:
                raise Inconsistent(f"the run's hash is {head}, that of what came is {self._chain.hex()}")
            self.verified = True
        self.last_seq = last_seq

    def _total(self, last_seq: int) -> int:
        """Return how many events there are, of those that this watch can tell, from its begin to the end."""
        assert self._begin is not None
        last = last_seq if self._first else last_seq + 1  # the seal's
        return max(0, last + 1 - max(self._begin + 1, self._first))
