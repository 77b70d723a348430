"""What the command line asks of a service: requests over HTTP, and one run's events over WebSocket.

Knows the public API and none of the rooms behind it. Slow imports wait until they are needed.
"""

import http.client
import json
import random
from collections.abc import Callable, Iterator, Mapping
from time import sleep
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

PREFIX = "/api/v2"
REQUEST_TIMEOUT_S = 30.0
OPEN_TIMEOUT_S = 10.0
PAGE_EVENTS = 1_000
FRAME_BYTES_MAX = 1024 * 1024  # an event is smaller: an append takes 768 KiB
LOST_IN_A_ROW_MAX = 10  # connections that brought nothing new; with the pauses about two minutes
PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 20.0
COME_BACK_STATUSES = (429, 502, 503, 504)
COME_BACK_CODES = (1001, 1006, 1011, 1012, 1013, 4408, 4429)


class ClientError(Exception):
    """A request that was not answered as hoped; the text is for people."""


class Refused(ClientError):
    """The service said no. ``faults`` are (JSON pointer, message), one for each thing that is wrong."""

    def __init__(self, status: int, detail: str, faults: list[tuple[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.faults = faults or []


class Unreachable(ClientError):
    """No service answered, or it could not do its work."""


class Client:
    """A service at ``url`` (``http://host:port``, a path in front of the API is kept).

    Raises ValueError for anything that is not such an address.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is not an address such as http://127.0.0.1:8080")
        self.secure = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.secure else 80)
        self.base = parts.path.rstrip("/") + PREFIX
        self.url = url

    def get(self, path: str, **query: object) -> Any:
        """Return the JSON document at ``path``. Raises Refused, Unreachable."""
        return json.loads(self.request("GET", path, query=query))

    def post(self, path: str, body: object = None) -> Any:
        """Send ``body`` (None: no body) and return the answer. Raises Refused, Unreachable."""
        return json.loads(self.request("POST", path, body=body) or b"null")

    def put(self, path: str, body: object) -> Any:
        """Replace what is at ``path`` and return the answer. Raises Refused, Unreachable."""
        return json.loads(self.request("PUT", path, body=body) or b"null")

    def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, object] | None = None,
    ) -> bytes:
        """Return the body of the answer to one request. Raises Refused, Unreachable."""
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=REQUEST_TIMEOUT_S)
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, self._target(path, query), data, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url} does not answer: {str(error) or type(error).__name__}") from error
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise refusal(response.status, response.reason, answer)
        return answer

    def events(self, run_id: str, *, after: int | None = None) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield the events of a run that have happened so far, each as it was recorded and as it reads."""
        path = f"/workflows/runs/{segment(run_id)}/events"
        while True:
            answer = self.request("GET", path, query={"after": after, "limit": PAGE_EVENTS})
            from msgspec import Raw
            from msgspec.json import decode

            page = decode(answer, type=dict[str, Raw])
            for data in decode(page["data"], type=list[Raw]):
                yield bytes(data), decode(data)
            after = decode(page["nextCursor"])
            if after is None:
                return

    def watch(
        self, run_id: str, *, after: int | None = None, notice: Callable[[str], None] = lambda _: None
    ) -> "Watch":
        """Return the events of a run, those with a seq above ``after`` (None: from the first on)."""
        return Watch(self, run_id, after, notice)

    def stream_url(self, run_id: str, after: int | None) -> str:
        """Return the address of a run's stream after a seq, for a WebSocket."""
        query = {} if after is None else {"after": after}
        host = f"[{self.host}]" if ":" in self.host else self.host
        target = self._target(f"/workflows/runs/{segment(run_id)}/stream", query)
        return f"{'wss' if self.secure else 'ws'}://{host}:{self.port}{target}"

    def _target(self, path: str, query: Mapping[str, object] | None) -> str:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return self.base + path + (f"?{urlencode(given)}" if given else "")


class Watch:
    """A run's events to the end, over as many connections as that takes.

    Each item is the event as it was received and as it reads. Once there are no more, ``status`` says how
    the run ended. A lost connection is taken up again after the last event, with growing pauses that
    ``notice`` is told of. Raises Refused, and Unreachable when the first connection cannot be made or
    LOST_IN_A_ROW_MAX in a row brought nothing.
    """

    def __init__(self, client: Client, run_id: str, after: int | None, notice: Callable[[str], None]) -> None:
        self.client = client
        self.run_id = run_id
        self.after = after
        self.status: str | None = None
        self._notice = notice
        self._lost = 0
        self._connected = False

    def __iter__(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        while self.status is None:
            try:
                yield from self._connection()
            except _Lost as lost:
                self._pause(lost)

    def _connection(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
        from websockets.frames import Close
        from websockets.sync.client import connect

        try:
            connection = connect(
                self.client.stream_url(self.run_id, self.after),
                compression=None,
                proxy=None,
                open_timeout=OPEN_TIMEOUT_S,
                max_size=FRAME_BYTES_MAX,
            )
        except InvalidStatus as answered:
            raise self._denied(answered) from answered
        except (OSError, WebSocketException) as error:
            raise _Lost(str(error) or "no answer") from error
        self._connected = True
        with connection:
            try:
                while True:
                    data = connection.recv(decode=False)
                    event = json.loads(data)
                    self.after = event["seq"]
                    self._lost = 0
                    yield data, event
            except ConnectionClosed as closed:
                end = closed.rcvd or Close(1006, "connection lost")
                self._closed(end.code, end.reason)

    def _closed(self, code: int, reason: str) -> None:
        if code == 1000:
            self.status = self._status_of(reason)
        elif code in COME_BACK_CODES:
            raise _Lost(f"closed {code} {reason}".rstrip())
        else:
            raise Refused(code, f"The stream was closed: {code} {reason}".rstrip())

    def _status_of(self, reason: str) -> str:
        match reason.split():
            case ["run", status, *_]:
                return status
        run: dict[str, Any] = self.client.get(f"/workflows/runs/{segment(self.run_id)}")
        return str(run["status"])

    @staticmethod
    def _denied(answered: Any) -> Exception:
        response = answered.response
        problem = refusal(response.status_code, response.reason_phrase, response.body or b"")
        if response.status_code not in COME_BACK_STATUSES:
            return problem
        try:
            wait_s = float(response.headers.get("Retry-After", "0"))
        except ValueError:  # the other form of the header is a date
            wait_s = 0.0
        return _Lost(str(problem), wait_s)

    def _pause(self, lost: "_Lost") -> None:
        if not self._connected:
            raise Unreachable(f"{self.client.url} does not answer: {lost}") from lost
        self._lost += 1
        if self._lost > LOST_IN_A_ROW_MAX:
            raise Unreachable(f"given up after {LOST_IN_A_ROW_MAX} attempts: {lost}") from lost
        longest_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** (self._lost - 1))
        pause_s = max(min(lost.wait_s, PAUSE_MAX_S), random.uniform(longest_s / 2, longest_s))  # noqa: S311  spreads clients
        self._notice(
            f"{lost}; again in {pause_s:.1f} s after seq {'-' if self.after is None else self.after}"
        )
        sleep(pause_s)


class _Lost(Exception):
    """The connection is gone and may come back; not before ``wait_s`` if the service said so."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def segment(text: str) -> str:
    """Return ``text`` as one segment of a path."""
    return quote(text, safe="")


def refusal(status: int, reason: str, answer: bytes) -> ClientError:
    """Return the error that an answer is: problem+json as it says, anything else by its status line."""
    try:
        problem = json.loads(answer)
        detail = str(problem["detail"])
        faults = [(str(each["pointer"]), str(each["message"])) for each in problem.get("errors", ())]
    except (ValueError, KeyError, TypeError, AttributeError):
        detail, faults = f"{status} {reason}", []
    if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unreachable(detail)
    return Refused(status, detail, faults)
