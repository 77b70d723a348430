"""What a stream may be asked for, and how each fault is named."""

import pytest

from service.api.filters import RUN_TYPES, After, EventFilter
from service.api.stream_query import StreamQuery, parse_stream_query
from service.domain.events import STEP_TYPES
from service.errors import InvalidInput


@pytest.mark.parametrize(
    ("query", "last_event_id", "after"),
    [
        (b"", None, After(seq=-1)),
        (b"after=0", None, After(seq=0)),
        (b"after=17", None, After(seq=17)),
        (b"after=999999999999999", None, After(seq=999_999_999_999_999)),
        (b"after=tail", None, After(count=0)),
        (b"after=-1", None, After(count=1)),
        (b"after=-250", None, After(count=250)),
        (b"after=17", "3", After(seq=3)),
        (b"after=tail", "3", After(seq=3)),
        (b"", "0", After(seq=0)),
        (b"after=5", "", After(seq=5)),
    ],
)
def test_the_cursor(query, last_event_id, after):
    assert parse_stream_query(query, last_event_id) == StreamQuery(after, EventFilter(frozenset(STEP_TYPES)))


@pytest.mark.parametrize(
    ("query", "types"),
    [
        (b"", STEP_TYPES),
        (b"types=all", RUN_TYPES),
        (b"types=step_log", {"step_log"}),
        (b"types=step_log,run_complete", {"step_log", "run_complete"}),
        (b"types=step_log%2Cstep_start", {"step_log", "step_start"}),
    ],
)
def test_the_types(query, types):
    assert parse_stream_query(query, None).where == EventFilter(frozenset(types))


@pytest.mark.parametrize(
    ("text", "wait_s"), [(b"30s", 30), (b"5m", 300), (b"0", 0), (b"1500", 1.5), (b"250ms", 0.25)]
)
def test_the_wait(text, wait_s):
    assert parse_stream_query(b"wait=" + text, None).wait_s == wait_s


def test_the_step_and_the_level():
    where = parse_stream_query(b"stepId=Step_1-a&level=warn", None).where
    assert where == EventFilter(step_id="Step_1-a", level="warn")


@pytest.mark.parametrize(
    ("query", "last_event_id", "faults"),
    [
        (b"after=", None, {"/query/after": "must be a seq"}),
        (b"after", None, {"/query/after": "must be a seq"}),
        (b"after=x", None, {"/query/after": "must be a seq"}),
        (b"after=-0", None, {"/query/after": "must be a seq"}),
        (b"after=+5", None, {"/query/after": "must be a seq"}),
        (b"after=1.0", None, {"/query/after": "must be a seq"}),
        (b"after=%D9%A1", None, {"/query/after": "must be a seq"}),
        (b"after=1000000000000000", None, {"/query/after": "must be a seq"}),
        (b"after=1&after=1", None, {"/query/after": "given twice"}),
        (b"types=", None, {"/query/types": "holds ''"}),
        (b"types=all,step_log", None, {"/query/types": "holds 'all' among others; it stands alone"}),
        (b"types=step_log,all", None, {"/query/types": "it stands alone"}),
        (b"types=All", None, {"/query/types": "holds 'All'; known are all, run_complete"}),
        (
            b"types=step_log,nonsense,workflow_created",
            None,
            {"/query/types": "'nonsense', 'workflow_created'"},
        ),
        (b"types=step_log&types=step_start", None, {"/query/types": "given twice"}),
        (b"level=loud", None, {"/query/level": "one of debug, info, warn, error"}),
        (b"level=", None, {"/query/level": "one of"}),
        (b"wait=soon", None, {"/query/wait": "a number with a unit"}),
        (b"wait=-1s", None, {"/query/wait": "unit"}),
        (b"wait=301s", None, {"/query/wait": "at most 300s"}),
        (b"control=yes", None, {"/query/control": "one of 0, 1"}),
        (b"errors=status", None, {"/query/errors": "one of close"}),
        (b"stepId=a&stepId=b", None, {"/query/stepId": "given twice"}),
        *(
            (b"stepId=" + text, None, {"/query/stepId": "must be 1 to 128 letters, digits, _ or -"})
            for text in (b"", b"a%20b", b"a,b", b"%C3%A4", b"x" * 129)
        ),
        (
            b"After=1",
            None,
            {"/query/After": "is unknown; known are after, types, stepId, level, wait, control, errors"},
        ),
        (b"a/b~c=1", None, {"/query/a~1b~0c": "unknown"}),
        (b"=1", None, {"/query/": "unknown"}),
        (b"after=%FF", None, {"/query": "UTF-8"}),
        (b"after=\xff", None, {"/query": "UTF-8"}),
        (b"&".join(b"a%d=1" % n for n in range(33)), None, {"/query": "at most 32"}),
        (b"after=5", "x", {"/headers/last-event-id": "must be a seq"}),
        (b"", "-1", {"/headers/last-event-id": "must be a seq"}),
        (b"", "tail", {"/headers/last-event-id": "must be a seq"}),
        (b"after=x", "5", {"/query/after": "must be a seq"}),
        (b"after=x&types=y&z=1", None, {"/query/after": "seq", "/query/types": "'y'", "/query/z": "unknown"}),
    ],
)
def test_every_fault_is_named(query, last_event_id, faults):
    with pytest.raises(InvalidInput) as refused:
        parse_stream_query(query, last_event_id)
    found = {fault.pointer: fault.message for fault in refused.value.faults}
    assert found.keys() == faults.keys()
    assert len(refused.value.faults) == len(found)
    for pointer, text in faults.items():
        assert text in found[pointer]
