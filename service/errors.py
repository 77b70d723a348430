"""Every error of ours, as data; texts are made late and no error knows HTTP (api/problems.py does).

TailraceError
├── LogError
│   ├── WrongExpectedSeq    somebody else wrote this stream since you looked
│   ├── AppendTooLarge      a batch over the append's limits
│   ├── Damaged             a stored event whose checksum does not fit
│   └── LogUnavailable      the store failed; ``stored`` says what is known of the append
├── InvalidInput            what a caller sent, every fault with its place
├── NotFound                no such workflow or run
├── Conflict                it exists and differs, or is over
├── Unauthenticated         no credential, or one that grants nothing
├── Forbidden               a right is missing
├── Throttled               over a limit; later it may go
└── NotCaughtUp             a projection did not reach the log's head in time
"""

from msgspec import Struct


class TailraceError(Exception):
    """The root of every error that Tailrace raises on purpose."""


class LogError(TailraceError):
    """The log could not do what was asked."""


class WrongExpectedSeq(LogError):
    """The stream's last seq is not the one the writer expected."""

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        super().__init__(f"{stream} is at seq {actual}, not {expected}")
        self.stream = stream
        self.expected = expected
        self.actual = actual


class AppendTooLarge(LogError):
    """A batch of more events or bytes than one append takes; nothing was stored."""


class Damaged(LogError):
    """A stored event no longer fits its checksum; it is reported, never delivered.

    ``position`` is where it stands in the log, for whoever was reading the whole log and goes on behind it.
    Where nothing says any more whose event it was, ``stream`` is empty and ``seq`` is -1; if a whole page of
    the file is damaged, ``position`` is the last that lies there.
    """

    def __init__(self, stream: str, seq: int, *, position: int | None = None) -> None:
        super().__init__(
            f"{stream}: the stored event {seq} does not fit its checksum"
            if stream
            else f"The log cannot be read at position {position}: it is damaged there"
        )
        self.stream = stream
        self.seq = seq
        self.position = position


class LogUnavailable(LogError):
    """The store failed.

    ``stored`` is False when the append surely left nothing behind, None when that is unknown until
    the log has been reopened and read: repeat the same append with the same expected seq.
    """

    def __init__(self, reason: str, *, stored: bool | None = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.stored = stored


class Fault(Struct, frozen=True, order=True):
    """One thing wrong with what a caller sent: where (RFC 6901 JSON pointer) and what."""

    pointer: str
    message: str


class InvalidInput(TailraceError):
    """What a caller sent is wrong; ``faults`` lists every fault that was found."""

    def __init__(self, faults: list[Fault], *, detail: str = "The request is not valid.") -> None:
        super().__init__("; ".join(f"{fault.pointer or '/'}: {fault.message}" for fault in faults) or detail)
        self.faults = faults
        self.detail = detail


class NotFound(TailraceError):
    """There is no such workflow or run."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"There is no {what} {name!r}.")
        self.what = what
        self.name = name


class Conflict(TailraceError):
    """The request contradicts what is recorded; ``data`` says what that is."""

    def __init__(self, detail: str, **data: object) -> None:
        super().__init__(detail)
        self.data = data


class Unauthenticated(TailraceError):
    """There is no credential, or it is not (any more) worth anything."""


class Forbidden(TailraceError):
    """Whoever asks is known, and lacks ``right``."""

    def __init__(self, detail: str, *, right: str) -> None:
        super().__init__(detail)
        self.right = right


class Throttled(TailraceError):
    """A limit is reached; ``retry_after_s`` is when it is worth to ask again."""

    def __init__(self, detail: str, *, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class NotCaughtUp(TailraceError):
    """A projection has not reached the log's head in time; try again."""
