"""The JavaScript client in Node, against servers that end, refuse and lie in every way: what it does then."""

import re
from contextlib import ExitStack

import pytest

from service.api.asyncapi import CLOSE_CODES
from service.api.problems import Problem
from tests.clients.between import Liar, Says, end, event, said

both = pytest.mark.parametrize("transport", ["websocket", "sse"])
HELLO = said("hello", status="running", lastSeq=2, after=None)
WHOLE = Says((HELLO, event(1), event(2), end(2)))
SSE_HEAD = b"HTTP/1.1 200 x\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@pytest.fixture
def lying(watch):
    """Watch run ``r`` of a liar to the end; returns the watching and the liar."""
    with ExitStack() as stack:

        def start(*script: Says, transport: str = "websocket", **options):
            liar = stack.enter_context(Liar(*script))
            return watch(liar.url, "r", transport, **options).ended(), liar

        yield start


def refusal(status: int, *, headers: str = "", **extra) -> Says:
    body = Problem(status, "not so", extra=extra).body().decode()
    return answer(status, body, headers)


def answer(status: int, body: str = "", headers: str = "") -> Says:
    head = f"HTTP/1.1 {status} x\r\n{headers}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return Says(head=(head + body).encode())


def fault(status: int, **extra) -> bytes:
    return SSE_HEAD + b"event: fault\ndata: %b\n\n" % Problem(status, "not so", extra=extra).body()


@pytest.mark.parametrize("code", [*CLOSE_CODES, 1001, 1014, 3000])
def test_each_close_code_is_answered_as_the_asyncapi_document_says(code, lying):
    when = CLOSE_CODES.get(code, ("", ""))[1]
    watching, _ = lying(Says((HELLO, event(1)), close=(code, "so it is")), Says((event(2), end(2))))
    # 1000 without the run's end before it was not said by the service.
    if when == "reconnect with after" or code in {1000, 1001, 1014}:
        assert watching.end["received"] == 2
        (pause,) = watching.said("pause")
        assert pause["reason"] == f"closed {code} so it is"
        assert "after=1" in watching.said("socket")[1]
    else:
        assert watching.events == [event(1)]
        assert (watching.error["name"], watching.error["code"]) == ("Refused", code)
        assert watching.error.get("status") == (code - 4000 if 4400 <= code < 4600 else None)
        assert watching.error["message"] == "so it is"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 406, 409, 410, 421, 408, 429, 500, 502, 503, 504])
def test_each_status(status, lying):
    if status in {408, 429} or status >= 500:
        watching, _ = lying(refusal(status), WHOLE, transport="sse")
        assert watching.end["received"] == 2
        assert [pause["reason"] for pause in watching.said("pause")] == ["not so"]
    else:
        watching, _ = lying(refusal(status), transport="sse")
        assert watching.error["message"] == "not so"
        assert (watching.error["name"], watching.error["status"]) == ("Refused", status)
        assert watching.said("pause") == []


@pytest.mark.parametrize(
    ("given", "waits_ms"),
    [("3", 3_000), ("9999", 20_000), ("Fri, 31 Dec 9999 23:59:59 GMT", 20_000), ("soon", 7)],
)
def test_retry_after_is_waited_for_within_reason(given, waits_ms, lying):
    busy = refusal(503, headers=f"retry-after: {given}\r\n")
    first, rest = Says((HELLO, event(1)), close=(1012, "")), Says((event(2), end(2)))
    watching, _ = lying(first, busy, rest, transport="sse", pauseMs=7, hurry=100)
    assert watching.end["received"] == 2
    assert waits_ms in [pause["pauseMs"] for pause in watching.said("pause")[1:]]


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (Says(head=fault(503)), "not so"),
        (Says(head=fault(500)), "not so"),
        (Says(head=SSE_HEAD + b"data: {}\ndata: "), "the connection ended before the run"),
        (answer(200, "hi"), "it is not the service that answers"),
        (answer(503, "hi"), "HTTP 503"),
        (
            Says(head=b"HTTP/1.1 204 x\r\nconnection: close\r\n\r\n"),
            None,
        ),  # the run is then asked for, and what comes is not one
    ],
)
def test_other_ends_of_sse(lost, reason, lying):
    watching, _ = lying(lost, WHOLE, WHOLE, transport="sse")
    assert watching.end["received"] == 2
    assert [pause["reason"] for pause in watching.said("pause")] == [
        reason or "it is not the service that answers"
    ]


def test_a_damaged_event_is_reported_not_skipped(lying):
    watching, _ = lying(Says(head=fault(500, stream="run/r", seq=2)), WHOLE, transport="sse")
    assert (watching.error["name"], watching.error["code"]) == ("Refused", 4500)


@both
@pytest.mark.parametrize(
    ("texts", "options", "says"),
    [
        ((event(2),), {}, "event 2 of r came where 1 of r was due"),
        ((event(1), event(3)), {}, "event 3 of r came where 2 of r was due"),
        ((event(1), event(1)), {}, "event 1 of r came where 2 of r was due"),
        ((event(5),), {"after": 5}, "event 5 of r came where 6 of r was due"),
        ((event(1),), {"types": "all"}, "event 1 of r came where 0 of r was due"),
        ((event(4), event(4)), {"level": "warn"}, "event 4 of r came where 5 of r was due"),
        ((event(1, "q"),), {}, "event 1 of q came where 1 of r was due"),
        ((said("hello", after=7), event(9)), {"after": "tail"}, "event 9 of r came where 8 of r was due"),
        ((event(1), end(2)), {}, "r ended with event 2 where 2 was due"),
        ((event(1), event(2), end(1)), {}, "r ended with event 1 where 3 was due"),
        ((end(2),), {}, "r ended with event 2 where 1 was due"),
        ((event(0), event(1), end(1)), {"types": "all"}, "r ended with event 1 where 2 was due"),
    ],
)
def test_what_is_not_the_run_without_a_gap_is_refused(transport, texts, options, says, lying):
    watching, liar = lying(Says(texts), transport=transport, **options)
    assert (watching.error["name"], watching.error["message"]) == ("Broken", says)
    assert len(liar.heads) == 1


@both
def test_what_is_no_event_at_all_is_refused(transport, lying):
    texts = ('{"seq":',) if transport == "websocket" else ()
    head = SSE_HEAD + b'data: {"seq":\n\n' if transport == "sse" else b""
    watching, _ = lying(Says(texts, head=head), transport=transport)
    assert watching.error["name"] == "SyntaxError"


def test_an_event_without_an_end_is_refused(lying):
    watching, _ = lying(Says(head=SSE_HEAD + b"data: " + b"x" * 1_100_000), transport="sse")
    assert watching.error["name"] == "Broken"


@both
@pytest.mark.parametrize(
    ("first", "options", "cursor"),
    [
        ((said("hello", after=7),), {"after": "tail"}, 7),
        ((said("hello", after=7),), {"after": -5}, 7),
        ((said("hello", after=None),), {"after": -5}, None),
        ((HELLO,), {}, None),
        ((HELLO, event(1)), {}, 1),
        ((HELLO, said("bookmark", seq=7)), {}, None),  # unfiltered, only an event is a place
        ((HELLO, said("bookmark", seq=7)), {"level": "warn"}, 7),
        ((HELLO, event(3), said("caught_up", seq=7)), {"stepId": "s"}, 7),
        ((HELLO, event(9), said("caught_up", seq=7)), {"stepId": "s"}, 9),
    ],
)
def test_where_it_goes_on(transport, first, options, cursor, lying):
    rest = tuple(event(seq) for seq in range(1 if cursor is None else cursor + 1, 12))
    watching, liar = lying(
        Says(first, close=(1012, "")), Says((*rest, end(11))), transport=transport, **options
    )
    assert watching.end["status"] == "success"
    asked = re.search(r"[?&]after=([^& ]+)", liar.heads[1])
    assert (asked and asked[1]) == (cursor and str(cursor))


@both
def test_silence_is_no_connection(transport, lying):
    watching, liar = lying(Says((HELLO, event(1))), Says((event(2), end(2))), transport=transport, hurry=100)
    assert watching.end["received"] == 2
    assert (
        watching.said("pause")[0]["reason"] == f"nothing came for {150 if transport == 'websocket' else 50} s"
    )


@both
def test_it_gives_up_after_so_many_in_a_row_that_brought_nothing(transport, lying):
    nothing, one = Says((HELLO,), close=(1013, "busy")), Says((HELLO, event(1)), close=(1013, "busy"))
    watching, liar = lying(nothing, nothing, one, nothing, transport=transport, retries=2)
    assert [pause["attempt"] for pause in watching.said("pause")] == [1, 2, 1, 2]
    assert len(liar.heads) == 5
    assert watching.error["name"] == "Unreachable"
    assert watching.error["after"] == 1
    reason = "closed 1013 busy" if transport == "websocket" else "the connection ended before the run"
    assert watching.error["cause"] == reason


def test_pauses_grow_and_are_spread(lying):
    one = Says((HELLO, event(1)), close=(1012, ""))
    watching, _ = lying(one, refusal(503), transport="sse", pauseMs=None, hurry=1_000)
    pauses = [pause["pauseMs"] for pause in watching.said("pause")]
    assert len(pauses) == 10
    for n, pause_ms in enumerate(pauses):
        longest_ms = min(20_000, 500 * 2**n)
        assert longest_ms / 2 <= pause_ms <= longest_ms
    assert len(set(pauses)) == 10


@both
def test_an_abort_ends_a_pause(transport, lying):
    watching, _ = lying(
        Says((HELLO,), close=(1013, "")), transport=transport, pauseMs=3_600_000, aborted="pause"
    )
    assert watching.error["name"] == "AbortError"


@both
def test_an_abort_at_the_start_ends_it(transport, lying):
    watching, _ = lying(Says(), transport=transport, aborted="start")
    assert watching.error["name"] == "AbortError"
