"""From a credential to what it grants, and whether it still does."""

import asyncio
import time

import structlog
from msgspec.structs import replace

from service.access.grants import ANONYMOUS, EVERYTHING, Grant
from service.access.keys import KEY_PREFIX, LOCK_TIMEOUT_S, SESSION_LIFETIME_S, KeyBook, KeyFile, session_id
from service.access.tickets import Ticket, Tickets
from service.access.tokens import TokenIssuer, read_session, sign_session
from service.errors import Forbidden, InvalidInput, Unauthenticated

_SESSION_OVER = "The session is over: log in again."

_diagnostics = structlog.get_logger("tailrace.access")


class Authentication:
    """Knows the keys in ``keys`` and, if there is one, an ``issuer`` of tokens.

    Credentials are required as soon as there is a file of keys or an issuer, and from then on as long as
    the process lives: a file that vanishes, or cannot be read, lets nobody in. ``exposed``: others than this
    machine may reach the service, so that credentials are required whatever there is.
    """

    def __init__(self, keys: KeyFile, issuer: TokenIssuer | None = None, *, exposed: bool = False) -> None:
        self.keys = keys
        self.issuer = issuer
        self._required = exposed or issuer is not None
        self._fault: str | None = None
        self._tickets = Tickets()
        self._told_shared = False
        self._ending = asyncio.Lock()
        self._book()  # a file that vanishes before anybody asks has been there

    @property
    def required(self) -> bool:
        """Tell whether a request needs a credential."""
        self._book()
        return self._required

    def bearer(self, text: str) -> Grant:
        """Return what a key or a token grants. Raises Unauthenticated."""
        if not text.startswith(KEY_PREFIX):
            if self.issuer is None:
                raise Unauthenticated("This is not a key of this service.")
            return self.issuer.grant(text)
        self._book()
        try:
            return self.keys.grant(text, time.time())
        except InvalidInput:
            raise self._unreadable() from None

    def session(self, text: str) -> Grant:
        """Return what a session grants now. Raises Unauthenticated."""
        book = self._known_book()
        return self._still(read_session(text, book.session_secret), book)

    def open_session(self, grant: Grant) -> tuple[str, int]:
        """Return the text of a new session that grants the same, and its seconds; not beyond ``grant``."""
        now = int(time.time())
        ends_at = now + SESSION_LIFETIME_S
        if grant.expires_at is not None:
            ends_at = min(ends_at, int(grant.expires_at))
        book = self._known_book()
        issued_at = max(now, book.opens_from(grant.name))
        grant = replace(grant, session_id=session_id(grant.name), issued_at=issued_at, expires_at=ends_at)
        return sign_session(grant, book.session_secret), ends_at - now

    async def end_session(self, grant: Grant) -> None:
        """Take the session that ``grant`` came from no longer.

        Raises Unauthenticated if the keys cannot be read, OSError if they cannot be written, be it because
        somebody holds them for long.
        """
        if grant.session_id is None or grant.expires_at is None:
            return
        # A file of keys of the thread's own: one at a time writes, and whoever looks meanwhile need not wait.
        file, now = KeyFile(self.keys.path), int(time.time())
        async with asyncio.timeout(LOCK_TIMEOUT_S):
            await self._ending.acquire()
        try:
            expires_at = int(grant.expires_at)
            await asyncio.to_thread(file.end_session, grant.session_id, grant.name, expires_at, now)
        except InvalidInput:
            raise self._unreadable() from None
        finally:
            self._ending.release()
            self.keys.look_again()

    def ticket(self, grant: Grant, run_id: str) -> Ticket:
        """Return a ticket for one stream of ``run_id``. Raises Throttled."""
        return self._tickets.issue(grant, run_id, time.monotonic())

    def redeem(self, text: str, run_id: str) -> Grant:
        """Return what a ticket grants, once. Raises Unauthenticated."""
        return self.renewed(self._tickets.redeem(text, run_id, time.monotonic()))

    def renewed(self, grant: Grant) -> Grant:
        """Return what ``grant``, of some time ago, is worth now. Raises Unauthenticated if nothing."""
        if grant.name == ANONYMOUS:
            if self.required:
                raise Unauthenticated("Credentials are required now.")
            return EVERYTHING
        if grant.key_id is None and grant.session_id is None:
            return self._unexpired(grant)
        return self._still(grant, self._known_book())

    def still_reads(self, grant: Grant) -> Grant:
        """Return what ``grant``, by which somebody began to read, is worth now.

        Raises Unauthenticated if nothing, and Forbidden if it is a right too few: what made a run visible may
        have been the right to see everybody's.
        """
        now = self.renewed(grant)
        if not now.may("read") or (grant.sees_all and not now.sees_all):
            raise Forbidden("The right to read was taken away.", right="read")
        return now

    def _still(self, grant: Grant, book: KeyBook) -> Grant:
        if grant.session_id is not None and book.has_ended(grant):
            raise Unauthenticated(_SESSION_OVER)
        if grant.key_id is None:
            # Of a token: with another issuer, or none, it would be worth nothing today.
            if self.issuer is None or grant.issuer != self.issuer.fingerprint:
                raise Unauthenticated(_SESSION_OVER)
            return self._unexpired(grant)
        key = book.keys.get(grant.key_id)
        if key is None or key.state(time.time()) != "valid":
            raise Unauthenticated("The key was revoked, or has expired.")
        return self._unexpired(replace(grant, rights=frozenset(key.rights)))

    def _unexpired(self, grant: Grant) -> Grant:
        if grant.expires_at is not None and grant.expires_at <= time.time():
            raise Unauthenticated("The credential has expired.")
        return grant

    def _known_book(self) -> KeyBook:
        book = self._book()
        if book is None:
            raise self._unreadable()
        return book

    def _book(self) -> KeyBook | None:
        """Return the keys, None if there are none; say so once if they are missing or cannot be read."""
        try:
            book = self.keys.read()
        except InvalidInput as error:
            self._required = True
            self._failed(str(error))
            return None
        if book is None:
            if self._required:
                self._failed(f"{self.keys.path} is not there: keys and sessions are worth nothing")
            return None
        if self._fault is not None:
            _diagnostics.info("keys can be read again")
        self._fault = None
        self._required = True
        self._tell_shared()
        return book

    def _tell_shared(self) -> None:
        if self.keys.shared and not self._told_shared:
            said = "whoever reads the file can make sessions: chmod 600"
            _diagnostics.warning("keys may be read by a group", file=str(self.keys.path), reason=said)
        self._told_shared = self.keys.shared

    def _failed(self, reason: str) -> None:
        if self._fault is None:
            _diagnostics.error("keys cannot be read", reason=reason)
        self._fault = reason

    def _unreadable(self) -> Unauthenticated:
        return Unauthenticated("The keys of this service cannot be read; its diagnostics say why.")
