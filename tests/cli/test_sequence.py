"""What a client refuses to believe: each way in which received events cannot be the run, without a connection."""

from hashlib import sha256

import pytest

from service.client import Inconsistent
from service.client.sequence import Sequence
from tests.cli.scripted import event, said


def given(*messages: str, after: int | str = -1, ends: bool = False, filtered: bool = False) -> Sequence:
    """Return what a sequence makes of the messages of one connection."""
    sequence = Sequence("r", after, ends=ends, filtered=filtered)
    for message in messages:
        sequence.take(message.encode())
    return sequence


def hello(after: int | None = None, status: str = "running") -> str:
    return said("hello", status=status, lastSeq=9, after=after)


def end(last_seq: int, head: str = "") -> str:
    return said("end", status="success", lastSeq=last_seq, hash=head)


def events(first: int, last: int) -> list[str]:
    return [event(seq) for seq in range(first, last + 1)]


def chain(texts: list[str]) -> str:
    head = sha256(b"run/r").digest()
    for text in texts:
        head = sha256(head + text.encode()).digest()
    return head.hex()


def test_an_event_is_what_was_received():
    text = '{"runId":"r","type":"step_log","payload":{"message":"\\u00e4"},"seq":1,"timestamp":"T"}'
    sequence = given(hello())
    taken = sequence.take(text.encode())
    assert taken == (1, "step_log", {"message": "ä"}, "T", text.encode())
    assert sequence.take(said("hello", status="running", lastSeq=9, after=1).encode()) is None


@pytest.mark.parametrize(
    ("messages", "asked", "summary"),
    [
        ([hello(), *events(1, 5), end(5)], {}, "5 of 5 events"),
        ([hello(0), *events(1, 5), end(5)], {"after": 0}, "5 of 5 events"),
        ([hello(2), *events(3, 5), end(5)], {"after": 2}, "3 of 3 events after event 2"),
        ([hello(5), end(5)], {"after": 5}, "0 of 0 events after event 5"),
        ([hello(6), end(5)], {"after": 6}, "0 of 0 events after event 6"),
        ([hello(3), *events(4, 5), end(5)], {"after": "-2"}, "2 of 2 events after event 3"),
        ([hello(), *events(1, 2)], {}, "2 events so far"),
        ([hello(0), *events(1, 6), end(5)], {"after": 0, "ends": True}, "6 of 6 events"),
        ([hello(), *events(4, 4), end(5)], {"filtered": True}, "1 of 5 events passed the filter"),
        ([hello(), event(0), end(5)], {"filtered": True, "ends": True}, "1 of 7 events passed the filter"),
    ],
)
def test_what_is_whole_says_so(messages, asked, summary):
    assert given(*messages, **asked).summary == summary


def test_the_hash_of_a_whole_run_is_verified():
    texts = events(0, 6)
    sequence = given(hello(), *texts, end(5, chain(texts)), ends=True)
    assert sequence.verified
    assert sequence.summary == "7 of 7 events, hash verified"


@pytest.mark.parametrize(
    ("messages", "asked", "fault"),
    [
        ([hello(), event(1), event(3)], {}, "event 3 came where event 2 was due"),
        ([hello(), event(2)], {}, "event 2 came where event 1 was due"),
        ([hello(), event(1)], {"ends": True}, "event 1 came where event 0 was due"),
        ([hello(4), event(6)], {"after": 4}, "event 6 came where event 5 was due"),
        ([hello(), event(1), event(1)], {}, "event 1 came again, after event 1"),
        ([hello(), event(7), event(5)], {"filtered": True}, "event 5 came again, after event 7"),
        (
            [hello(), said("bookmark", seq=9), event(8)],
            {"filtered": True},
            "event 8 came again, after event 9",
        ),
        ([hello(3)], {"after": 4}, "the stream began after event 3 where event 5 was due"),
        ([hello(3)], {}, "the stream began after event 3 where event 0 was due"),
        ([event(1)], {"after": "tail"}, "event 1 came before the stream had said where it begins"),
        ([hello(), *events(1, 4), end(5)], {}, "the run is over, but 4 of 5 events came"),
        ([hello(), *events(1, 5), end(4)], {}, "the run is over, but 5 of 4 events came"),
        ([hello(), *events(0, 5), end(5)], {"ends": True}, "the run is over, but 6 of 7 events came"),
        ([hello(), said("caught_up", seq=5), end(5)], {}, "the run is over, but 0 of 5 events came"),
        (
            [hello(), *events(0, 6), end(5, "00")],
            {"ends": True},
            "the run's hash is 00, that of what came is ",
        ),
        (["[]"], {}, "this is no event of a run"),
        (["{"], {}, "this is no event of a run"),
        ([hello(), '{"seq":1}'], {}, "this is no event of a run"),
        ([hello(), event(1).replace('"seq": 1', '"seq": "1"')], {}, "this is no event of a run"),
        ([said("bookmark", seq=3)], {"after": "tail", "filtered": True}, "this is no event of a run"),
    ],
)
def test_what_cannot_be_is_named(messages, asked, fault):
    *before, last = messages
    sequence = given(*before, **asked)
    with pytest.raises(Inconsistent) as refused:
        sequence.take(last.encode())
    assert str(refused.value).startswith(fault)
    assert sequence.status is None


@pytest.mark.parametrize(("status", "caught_up"), [("running", True), ("queued", True), ("success", False)])
def test_caught_up_is_the_end_only_of_a_run_that_goes_on(status, caught_up):
    sequence = given(hello(status=status), said("caught_up", seq=0))
    assert sequence.caught_up == caught_up
    assert sequence.cursor == -1
