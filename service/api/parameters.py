"""The query parameters and headers that several routes take, as the documents describe them."""

from typing import Any

from msgspec import Struct

from service.api.filters import LEVELS, PLACE
from service.api.requests import ID, LIMIT_DEFAULT, LIMIT_MAX
from service.api.runs import KEY_LENGTH_MAX
from service.domain.trace import TRACESTATE_BYTES_MAX
from service.projection import STATUSES

Schema = dict[str, Any]


class Parameter(Struct, frozen=True):
    """A query parameter or a header."""

    name: str
    text: str
    schema: Schema
    where: str = "query"


TIME: Schema = {"type": "string", "format": "date-time"}
LIMIT = Parameter(
    "limit",
    "Rows of a page.",
    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
)
CURSOR = Parameter("cursor", "The nextCursor of the page before, unchanged.", {"type": "string"})
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "Makes the request repeatable: the same key and body get the same run. Not together with runId.",
    {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH_MAX},
    "header",
)
TRACEPARENT = Parameter(
    "traceparent",
    "W3C Trace Context: kept with the run, and handed to what its steps ask, each attempt with a parent id "
    "of its own. What the standard calls invalid is ignored; without one, no trace is begun.",
    {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"},
    "header",
)
TRACESTATE = Parameter(
    "tracestate",
    "Goes with traceparent, unchanged; more than so many characters are left out.",
    {"type": "string", "maxLength": TRACESTATE_BYTES_MAX},
    "header",
)
RUNS = (
    LIMIT,
    CURSOR,
    Parameter("status", "Runs that are so now.", {"enum": list(STATUSES)}),
    Parameter("since", "Runs started then or later.", TIME),
    Parameter("until", "Runs started before.", TIME),
)
AFTER = Parameter(
    "after",
    "The last seq seen; tail: only what is new; -n: the last n. Both are all of a run that came later.",
    {"type": "string"},
)
TYPES = Parameter("types", "Event types, separated by commas, or all, alone.", {"type": "string"})
STEP_ID = Parameter("stepId", "Of this step.", {"type": "string", "pattern": f"^{ID.pattern}$"})
LEVEL = Parameter("level", "Messages of this level at least; other types pass.", {"enum": list(LEVELS)})
WAIT = Parameter(
    "wait",
    "How long the run may take to exist; of a page, also to have an event that passes. Until then the "
    "answer is held; a WebSocket is accepted at once, and closed 4404 at expiry.",
    {"type": "string", "examples": ["30s", "5m"]},
)
STREAM = (
    AFTER,
    TYPES,
    STEP_ID,
    LEVEL,
    WAIT,
    Parameter(
        "control",
        "1 adds messages about the stream itself, without a seq: hello, caught_up, bookmark, end.",
        {"enum": ["0", "1"]},
    ),
    Parameter(
        "errors",
        "close: a WebSocket is refused by a close code, 4000 and the status, which a web page can see.",
        {"enum": ["close"]},
    ),
    Parameter(
        "Last-Event-ID",
        "A seq, as after, which it overrides; over a WebSocket, too.",
        {"type": "string", "pattern": f"^{PLACE.pattern}$"},
        "header",
    ),
)
