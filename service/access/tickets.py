"""Tickets: one stream of one run, once, within half a minute; for web pages that can send no header."""

import secrets
from hashlib import sha256

from msgspec import Struct

from service.access.grants import Grant
from service.errors import Throttled, Unauthenticated

TICKET_LIFETIME_S = 30.0
TICKETS_MAX = 100_000
TICKETS_PER_USER_MAX = 1_000


class Ticket(Struct, frozen=True):
    """A ticket as its buyer gets it. ``lifetime_s``: how long it can be used from now."""

    text: str
    run_id: str
    lifetime_s: float


class _Issued(Struct, frozen=True):
    grant: Grant
    run_id: str
    until: float


class Tickets:
    """Those that are out. They are in memory: after a restart a new one is asked for."""

    def __init__(self) -> None:
        self._issued: dict[bytes, _Issued] = {}  # in the order of their ends
        self._of_user: dict[str, int] = {}

    def issue(self, grant: Grant, run_id: str, now: float) -> Ticket:
        """Return a ticket for one stream of ``run_id``; ``now`` is a monotonic clock's. Raises Throttled."""
        self._forget(now)
        if self._of_user.get(grant.name, 0) >= TICKETS_PER_USER_MAX or len(self._issued) >= TICKETS_MAX:
            said = f"{TICKETS_PER_USER_MAX} tickets are out that nobody has used."
            raise Throttled(said, retry_after_s=TICKET_LIFETIME_S)
        text = secrets.token_urlsafe(32)
        self._issued[_hash(text)] = _Issued(grant, run_id, now + TICKET_LIFETIME_S)
        self._of_user[grant.name] = self._of_user.get(grant.name, 0) + 1
        return Ticket(text, run_id, TICKET_LIFETIME_S)

    def redeem(self, text: str, run_id: str, now: float) -> Grant:
        """Return what the ticket was issued for; trying uses it up. Raises Unauthenticated."""
        self._forget(now)
        issued = self._issued.pop(_hash(text), None)
        if issued is not None:
            self._returned(issued)
        if issued is None or issued.run_id != run_id:
            raise Unauthenticated("The ticket is not for this run, or it was used, or it is too old.")
        return issued.grant

    def _forget(self, now: float) -> None:
        while self._issued:
            first = next(iter(self._issued))
            if self._issued[first].until > now:
                return
            self._returned(self._issued.pop(first))

    def _returned(self, issued: _Issued) -> None:
        name = issued.grant.name
        self._of_user[name] -= 1
        if not self._of_user[name]:
            del self._of_user[name]


def _hash(text: str) -> bytes:
    return sha256(text.encode(errors="replace")).digest()
