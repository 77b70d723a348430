"""traceparent as W3C Trace Context has it: what is ignored, what is kept, and what an attempt hands on."""

import re

import pytest

from service.domain.events import RunStart, decode_event, encode_run_event
from service.domain.trace import child_of, parse_traceparent, parse_tracestate, trace_id_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "header", [GIVEN, f"  {GIVEN}\t", f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{PARENT}-ff"]
)
def test_what_is_valid_is_kept_as_it_is(header):
    assert parse_traceparent(header) == header.strip()


@pytest.mark.parametrize(
    ("header", "kept"),
    [(f"01-{TRACE}-{PARENT}-03", "01"), (f"cc-{TRACE}-{PARENT}-00-what-follows", "00"), (f"fe-{TRACE}-{PARENT}-09-", "01")],
)  # fmt: skip
def test_of_a_later_version_is_kept_what_every_version_shares(header, kept):
    assert parse_traceparent(header) == f"00-{TRACE}-{PARENT}-{kept}"


@pytest.mark.parametrize(
    "header",
    [
        "", "00", GIVEN.upper(), GIVEN + "-", GIVEN + "-more", GIVEN + "0", GIVEN[:-1], f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-0g", f"00_{TRACE}_{PARENT}_01", f"0-{TRACE}-{PARENT}-01", f"01-{TRACE}-{PARENT}-01more",
        GIVEN + "\n", f"{GIVEN},{GIVEN}", "٠٠" + GIVEN[2:],
    ],
)  # fmt: skip
def test_what_is_invalid_is_ignored(header):
    assert parse_traceparent(header) is None


def test_tracestate_is_joined_and_bounded():
    assert parse_tracestate(["a=1", " b=2,c=3 "]) == "a=1,b=2,c=3"
    assert parse_tracestate(["x" * 512]) == "x" * 512
    for ignored in ([], [""], ["x" * 513], ["x" * 300, "x" * 300], ["a=\x00"], ["a=\xe9"]):
        assert parse_tracestate(ignored) is None


def test_each_attempt_has_a_parent_id_of_its_own_and_always_the_same():
    asked = [(run, step, attempt) for run in ("r", "q") for step in ("a", "b") for attempt in (1, 2)]
    children = {each: child_of(GIVEN, *each) for each in asked}
    assert len(set(children.values())) == len(asked)
    assert children == {each: child_of(GIVEN, *each) for each in asked}
    for child in children.values():
        assert parse_traceparent(child) == child
        assert trace_id_of(child) == TRACE
        assert PARENT not in child
        assert re.fullmatch(r".*-01", child)


def test_a_header_without_a_trace_has_the_bytes_it_always_had():
    start = RunStart("w", 1, {}, {}, {"type": "api"}, "h")
    assert encode_run_event("r", start, seq=0, timestamp="t") == (
        b'{"runId":"r","type":"run_start","payload":{"workflowId":"w","workflowVersion":1,"definition":{},'
        b'"variables":{},"trigger":{"type":"api"},"requestHash":"h"},"seq":0,"timestamp":"t"}'
    )
    traced = RunStart("w", 1, {}, {}, {}, "h", traceparent=GIVEN, tracestate="a=1")
    assert decode_event(encode_run_event("r", traced, seq=0, timestamp="t")).payload == traced
