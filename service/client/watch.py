"""One run's events, over as many connections as that takes."""

from collections.abc import AsyncGenerator, Callable
from time import monotonic

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from service.client.backoff import Backoff
from service.client.errors import Refused, Unreachable, refusal, stranger
from service.client.http import Address, Query, segment, why
from service.client.sequence import Event, Sequence

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0  # nothing is lost when it is over: the service has said all, or we want no more
FRAME_BYTES_MAX = 1024 * 1024  # an event is smaller: an append takes 768 KiB
RETRY_AFTER_MAX_S = 60.0
COME_BACK_STATUSES = (408, 429, 502, 503, 504)  # not 500, which says that an event is damaged
# 1000 ends nothing: stream.end does
COME_BACK_CODES = (1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 4408, 4429)


class _Connecting(connect):
    """A connection that goes where it was told to: sent elsewhere, it would take the key along."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Watch:
    """The events of a run: ``async for event in watch``, from the first that was asked for to the run's end.

    Each comes exactly once, in the order of its seq, with the bytes that were recorded. A lost connection is
    taken up behind the last event; ``Backoff`` says how often in a row. Who leaves the loop may begin another
    one on the same watch, which goes on where the last one left; two at once are not for it.

    The loop raises Refused, if asking again would not help; Unreachable, after all attempts; Inconsistent, if
    an event is missing, comes twice or, in a watch of ``all`` from the start, is not what was recorded.
    """

    def __init__(
        self,
        address: Address,
        run_id: str,
        sequence: Sequence,
        query: Query,
        *,
        live: bool,
        backoff: Backoff,
        notice: Callable[[str], None],
    ) -> None:
        self._address = address
        self._path = f"/workflows/runs/{segment(run_id)}/stream"
        self._sequence = sequence
        self._query = query
        self._live = live
        self._backoff = backoff
        self._notice = notice
        self._attempts = 0  # in a row that brought nothing new

    @property
    def after(self) -> int | None:
        """Return the seq behind which the next event comes, None at the start.

        Given to another watch of the same run and filter, at any time, it goes on from here.
        """
        cursor = self._sequence.cursor
        return cursor if isinstance(cursor, int) and cursor >= 0 else None

    @property
    def received(self) -> int:
        """Return how many events have come."""
        return self._sequence.received

    @property
    def status(self) -> str | None:
        """Return how the run ended: success, failed or cancelled; None as long as that is not known."""
        return self._sequence.status

    @property
    def verified(self) -> bool:
        """Tell whether the run is over and its SHA-256 chain covers every byte that has come."""
        return self._sequence.verified

    @property
    def summary(self) -> str:
        """Return how many of how many events have come, in words: ``10 of 10 events``."""
        return self._sequence.summary

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Yield the events that have not come yet."""
        while not self._done():
            began, cursor = monotonic(), self._sequence.cursor
            try:
                async with self._connection() as connection:
                    while not self._done():
                        event = self._sequence.take(await connection.recv(decode=False))
                        if event is not None:
                            yield event
            except (OSError, WebSocketException) as error:
                lasted = monotonic() - began > self._backoff.longest_s  # the run had nothing to say
                if lasted or self._sequence.cursor != cursor:
                    self._attempts = 0
                await self._lost(error)

    def _done(self) -> bool:
        return self.status is not None or (not self._live and self._sequence.caught_up)

    def _connection(self) -> connect:
        cursor = self._sequence.cursor
        query = {"after": None if cursor == -1 else cursor, "control": 1, **self._query}
        return _Connecting(
            self._address.websocket(self._path, query),
            additional_headers=self._address.headers,
            compression=None,
            proxy=None,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=FRAME_BYTES_MAX,
        )

    async def _lost(self, error: Exception) -> None:
        """Pause before the next attempt. Raises Refused, Unreachable where there should be none."""
        url = self._address.url
        said, wait_s = _closed(error) if isinstance(error, ConnectionClosed) else _denied(error, url)
        self._attempts += 1
        if self._attempts > self._backoff.attempts:
            attempts = self._backoff.attempts
            raise Unreachable(f"{url} does not answer: {said}; given up after {attempts} attempts") from error
        pause_s = wait_s + self._backoff.pause_s(self._attempts)
        self._notice(
            f"{said}; again in {pause_s:.1f} s after seq {'-' if self.after is None else self.after}"
        )
        await self._backoff.sleep(pause_s)


def _closed(closed: ConnectionClosed) -> tuple[str, float]:
    """Return why an open connection ended, if it is to be taken up. Raises Refused if not."""
    code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "connection lost")
    if code in COME_BACK_CODES:
        return f"closed {code} {reason}".rstrip(), 0.0
    status = code - 4000 if 4400 <= code < 4500 else code
    raise Refused(status, f"The stream was closed: {code} {reason}".rstrip()) from closed


def _denied(error: Exception, url: str) -> tuple[str, float]:
    """Return why there is no connection and for how long there will be none. Raises Refused, Unreachable."""
    if not isinstance(error, InvalidStatus):
        return why(error), 0.0
    response = error.response
    if response.status_code < 400:
        raise stranger(url, f"{response.status_code} {response.reason_phrase}") from error
    problem = refusal(
        response.status_code,
        response.reason_phrase,
        bytes(response.body),
        response.headers.get("Retry-After"),
    )
    if response.status_code not in COME_BACK_STATUSES:
        raise problem from error
    return str(problem), min(problem.retry_after_s or 0.0, RETRY_AFTER_MAX_S)
