"""What can go wrong with a service, as its client sees it.

ClientError
├── Refused       the service said no: asking again would not help, or (429) only later
├── Unreachable   no service answers, or it cannot do its work
└── Inconsistent  what came cannot be the run: an event is missing, came twice, or is not what was recorded
"""

import json
from math import inf


class ClientError(Exception):
    """The root of every error of the client; the text is for people.

    ``retry_after_s``: when the service wants to be asked again, None where it did not say so.
    """

    retry_after_s: float | None = None


class Refused(ClientError):
    """The service said no.

    ``status`` is that of HTTP, or a WebSocket's close code where HTTP has none (1008, 1009, 4500).
    ``faults`` are (JSON pointer, message), one for each thing that is wrong.
    """

    def __init__(self, status: int, detail: str, faults: list[tuple[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.faults = faults or []


class Unreachable(ClientError):
    """No service answered, or it could not do its work, and went on so for all attempts that there are."""


class Inconsistent(ClientError):
    """Events are missing, came twice, or are not what was recorded; the text names them."""


def refusal(status: int, reason: str, answer: bytes, retry_after: str | None) -> Refused | Unreachable:
    """Return the error that an answer is: problem+json as it says, anything else by its status line.

    ``retry_after`` is the header.
    """
    try:
        problem = json.loads(answer)
        detail = str(problem["detail"])
        faults = [(str(each["pointer"]), str(each["message"])) for each in problem.get("errors", ())]
    except (ValueError, KeyError, TypeError, AttributeError):
        detail, faults = f"{status} {reason}", []
    error = Unreachable(detail) if status >= 500 else Refused(status, detail, faults)
    error.retry_after_s = _seconds(retry_after)
    return error


def stranger(url: str, said: str) -> Unreachable:
    """Return the error that an answer is which the service never gives; ``said`` tells what came."""
    return Unreachable(f"what answers at {url} is not Tailrace ({said})")


def _seconds(retry_after: str | None) -> float | None:
    try:
        seconds = float(retry_after or "")
    except ValueError:  # the other form of the header is a date
        return None
    return seconds if 0 <= seconds < inf else None
