"""The file of API keys: only their hashes are in it, and whoever reads it learns no key.

A key has 256 random bits, so that one SHA-256 is enough: there is nothing to guess, and nothing to slow down
(OWASP, Password Storage, speaks of secrets that people choose).
"""

import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct, field

from service.access.grants import ANONYMOUS, RIGHTS, Grant
from service.errors import Fault, InvalidInput, Unauthenticated

KEY_PREFIX = "trk_"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
FILE_BYTES_MAX = 64 * 1024 * 1024
SESSION_LIFETIME_S = 12 * 3_600
ENDED_SESSIONS_MAX = 10_000  # that are remembered one by one
ENDED_SESSIONS_PER_USER_MAX = 500
LOCK_TIMEOUT_S = 10.0
LOCK_RETRY_S = 0.01
EVERYBODY = ""  # whose name nobody has

_KEY = re.compile(r"trk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_BAD_KEY = "The key is not known, or no longer valid."

T = TypeVar("T")


class Key(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A key as the file keeps it. Times are Unix seconds; a revoked key stays, so that its id is known."""

    id: str
    name: str
    rights: tuple[str, ...]
    hash: str
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None

    def state(self, now: float) -> str:
        """Return valid, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


class KeyBook(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """All that the file holds. ``ended_sessions``: logged out before their time, with when that would be.

    ``sessions_from``: of this user, or of everybody, only sessions opened then or later count. It takes the
    place of ended sessions that are too many: to forget one of them would be to let it in again.
    """

    version: int
    session_secret: str
    keys: dict[str, Key] = field(default_factory=dict)
    ended_sessions: dict[str, int] = field(default_factory=dict)
    sessions_from: dict[str, int] = field(default_factory=dict)

    def opens_from(self, name: str) -> int:
        """Return since when sessions of ``name`` count."""
        return max(self.sessions_from.get(name, 0), self.sessions_from.get(EVERYBODY, 0))

    def has_ended(self, grant: Grant) -> bool:
        """Tell whether the session that ``grant`` came from was logged out."""
        return grant.session_id in self.ended_sessions or (grant.issued_at or 0) < self.opens_from(grant.name)

    def end(self, session_id: str, name: str, expires_at: int, now: int) -> None:
        """Take a session of ``name`` no longer; where too many are remembered, none that is open now."""
        ended = {each: until for each, until in self.ended_sessions.items() if until > now}
        since = {
            who: moment for who, moment in self.sessions_from.items() if moment > now - SESSION_LIFETIME_S
        }
        ended[session_id] = expires_at
        if sum(each.startswith(_owner(name)) for each in ended) > ENDED_SESSIONS_PER_USER_MAX:
            ended = {each: until for each, until in ended.items() if not each.startswith(_owner(name))}
            since[name] = now + 1
        if len(ended) > ENDED_SESSIONS_MAX or len(since) > ENDED_SESSIONS_MAX:
            ended, since = {}, {EVERYBODY: now + 1}
        self.ended_sessions, self.sessions_from = ended, since


class KeyFile:
    """The keys at ``path``; without a file there are none. A change by anyone is seen at the next look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shared = False  # with its group, which may read it: whoever does can make sessions
        self._seen: tuple[int, ...] | None = None
        self._book: KeyBook | None = None

    def read(self) -> KeyBook | None:
        """Return what the file holds now, None if there is none.

        Raises InvalidInput, with the file's name, for one that cannot be read or that others may read.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._seen = self._book = None
            return None
        except OSError as error:
            raise self._fault(f"cannot be read: {error.strerror}") from error
        seen = (found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode)
        if seen != self._seen:
            self._book = self._load(found)
            self._seen = seen
            self.shared = bool(found.st_mode & stat.S_IRGRP)
        return self._book

    def look_again(self) -> None:
        """Read the file at the next look, even if it seems to be the same."""
        self._seen = None

    def _load(self, found: os.stat_result) -> KeyBook:
        if found.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise self._fault("may be read or changed by others: chmod 600")
        if found.st_size > FILE_BYTES_MAX:
            raise self._fault(f"is over {FILE_BYTES_MAX} bytes")
        try:
            book = msgspec.json.decode(self.path.read_bytes(), type=KeyBook)
        except OSError as error:
            raise self._fault(f"cannot be read: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise self._fault(f"is not a file of keys: {error}") from error
        if book.version != 1 or len(book.session_secret) < 64:
            raise self._fault("is not a file of keys of this version")
        return book

    def _fault(self, said: str) -> InvalidInput:
        return InvalidInput([Fault(str(self.path), said)], detail="The keys cannot be used.")

    # What a key grants

    def grant(self, text: str, now: float) -> Grant:
        """Return what the key ``text`` grants. Raises Unauthenticated, InvalidInput."""
        found = _KEY.fullmatch(text)
        book = self.read()
        key = book.keys.get(found[1]) if found and book else None
        hash_ = _hash(text)
        if key is None or not compare_digest(key.hash, hash_) or key.state(now) != "valid":
            raise Unauthenticated(_BAD_KEY)
        return _grant(key)

    # Changes

    def create(
        self, name: str, rights: tuple[str, ...], now: int, *, expires_at: int | None = None
    ) -> tuple[Key, str]:
        """Add a key and return it with its text, which is nowhere else. Raises InvalidInput."""
        faults = []
        if not NAME.fullmatch(name) or name == ANONYMOUS:
            faults.append(Fault("name", "must be 1 to 128 letters, digits or . _ @ + -"))
        if not rights or (unknown := sorted(set(rights) - set(RIGHTS))):
            said = f"unknown: {', '.join(unknown)}; " if rights else ""
            faults.append(Fault("rights", f"{said}give some of {', '.join(RIGHTS)}"))
        if expires_at is not None and expires_at <= now:
            faults.append(Fault("expires", "must lie in the future"))
        if faults:
            raise InvalidInput(faults, detail="The key cannot be created.")
        key_id = secrets.token_hex(8)
        text = f"{KEY_PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
        ordered = tuple(right for right in RIGHTS if right in rights)
        key = Key(key_id, name, ordered, _hash(text), now, expires_at)
        self._change(lambda book: book.keys.update({key_id: key}))
        return key, text

    def revoke(self, key_ids: tuple[str, ...], now: int) -> list[Key]:
        """Revoke keys, all of them or, if one is unknown, none (InvalidInput); again is no fault."""

        def change(book: KeyBook) -> list[Key]:
            unknown = [key_id for key_id in key_ids if key_id not in book.keys]
            if unknown:
                faults = [Fault(key_id, "is not the id of a key") for key_id in unknown]
                raise InvalidInput(faults, detail="No key was revoked.")
            for key_id in key_ids:
                key = book.keys[key_id]
                if key.revoked_at is None:
                    book.keys[key_id] = msgspec.structs.replace(key, revoked_at=now)
            return [book.keys[key_id] for key_id in key_ids]

        return self._change(change)

    def ensure(self) -> None:
        """Make the file, without keys, if there is none: sessions are signed with its secret."""
        if self.read() is None:
            self._change(lambda _: None)

    def end_session(self, session_id: str, name: str, expires_at: int, now: int) -> None:
        """Take a session of ``name`` no longer, though it would last until ``expires_at``. Raises OSError."""
        self._change(lambda book: book.end(session_id, name, expires_at, now))

    def _change(self, change: Callable[[KeyBook], T]) -> T:
        """Apply ``change`` to what is there now, and replace the file as a whole. Raises OSError."""
        with _locked(self.path.absolute().parent):
            book = self.read() or KeyBook(1, secrets.token_hex(32))
            book = msgspec.json.decode(msgspec.json.encode(book), type=KeyBook)  # the seen one stays as it is
            result = change(book)
            data = msgspec.json.format(msgspec.json.encode(book), indent=1) + b"\n"
            if len(data) > FILE_BYTES_MAX:
                raise self._fault(f"would be over {FILE_BYTES_MAX} bytes")
            _replace(self.path, data)
        self.look_again()
        return result


def session_id(name: str) -> str:
    """Return the id of a new session of ``name``."""
    return _owner(name) + secrets.token_hex(16)


def _owner(name: str) -> str:
    """Return how ids of this user's sessions begin."""
    return sha256(name.encode()).hexdigest()[:16] + "."


def _grant(key: Key) -> Grant:
    return Grant(key.name, frozenset(key.rights), key_id=key.id, expires_at=key.expires_at)


def _hash(text: str) -> str:
    return "sha256:" + sha256(text.encode(errors="replace")).hexdigest()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory against other changes: the file itself is replaced, so it cannot be held.

    Raises TimeoutError if somebody else holds it for LOCK_TIMEOUT_S.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        until = time.monotonic() + LOCK_TIMEOUT_S
        while not _held(fd):
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds it", str(directory))
            time.sleep(LOCK_RETRY_S)
        yield
    finally:
        os.close(fd)


def _held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _replace(path: Path, data: bytes) -> None:
    """Write ``data`` where a crash leaves either the old file or the new one, readable by its owner alone.

    From root's hands it is the owner's of the old file, or of the directory: a service must read it.
    """
    written = path.with_name(f"{path.name}.new")
    written.unlink(missing_ok=True)
    fd = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            if os.geteuid() == 0:
                owner = (path if path.exists() else path.absolute().parent).stat()
                os.fchown(fd, owner.st_uid, owner.st_gid)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise
    directory = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
