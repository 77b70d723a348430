"""A segment gives the very bytes that the rows give, in every form and from every cursor."""

from zlib import crc32

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.log import Recorded
from service.segments import Segment
from service.wire import frames
from service.wire.frames import JOINED_BYTES_MAX, Frames

EDGES = (0, 1, 125, 126, 127, 4_095, 4_096, 48 * 1024 - 4, 48 * 1024, 65_535, 65_536, 262_144, 700_000)
STREAM = "run/r"
FORMS = ("server_sent_events", "lines")

lengths = st.lists(st.sampled_from(EDGES) | st.integers(0, 400), min_size=1, max_size=40)


def events(lengths: list[int], first_seq: int = 1) -> list[Recorded]:
    found = []
    for seq, length in enumerate(lengths, first_seq):
        data = (b"%d " % seq * (length // 2 + 1))[:length]
        found.append(Recorded(STREAM, seq, seq * 3, "step_log", data, crc32(data)))
    return found


def pieces(unsent: Frames) -> list[tuple[bytes, int]]:
    """Return what is given piece by piece to a client that takes no more at once, each with its last seq."""
    found = []
    while unsent:
        piece = bytes(unsent.piece())
        unsent.at += len(piece)
        found.append((piece, unsent.after()))
    return found


def again(segment: Segment) -> Segment | None:
    checksum = segment.checksum(STREAM)
    return Segment.stored(STREAM, segment.first_seq, segment.last_seq, segment.data, checksum)


@settings(max_examples=150, deadline=None)
@given(lengths, st.integers(1, 2**40))
@example(lengths=list(EDGES), first_seq=1)
@example(lengths=[204] * 1_024, first_seq=1_025)
def test_every_form_is_the_rows(lengths, first_seq):
    rows = events(lengths, first_seq)
    packed = Segment.pack(rows)
    for segment in (packed, again(packed)):
        assert (segment.first_seq, segment.last_seq) == (rows[0].seq, rows[-1].seq)
        for after in {-1, *range(rows[0].seq - 2, rows[-1].seq + 2, max(1, len(rows) // 40))}:
            rest = [row for row in rows if row.seq > after]
            assert list(segment.payloads(after)) == [(row.seq, row.data) for row in rest]
            assert pieces(segment.text_frames(after)) == list(frames.text_frames(rest))
            for form in FORMS:
                assert list(getattr(segment, form)(after)) == list(getattr(frames, form)(rest)), form


def test_a_text_is_bounded_and_a_larger_event_stands_alone():
    segment = Segment.pack(events([1_000] * 200 + [100_000] + [10] * 3))
    for texts in (pieces(segment.text_frames(0)), *(list(getattr(segment, form)(0)) for form in FORMS)):
        assert [seq for text, seq in texts if len(text) > JOINED_BYTES_MAX] == [201]
        assert texts[-1][1] == 204
        assert len(texts) == 7


def test_readers_share_the_bytes():
    segment = Segment.pack(events([300] * 500))
    assert segment.text_frames(17).left().obj is segment.data
    with pytest.raises(TypeError):
        segment.text_frames(0).data[0] = 1
    with pytest.raises(AttributeError):
        segment.data = b""


@settings(max_examples=300, deadline=None)
@given(lengths, st.data())
def test_nothing_altered_is_taken_for_what_was_stored(lengths, data):
    segment = Segment.pack(events(lengths, 5))
    stored = {
        "stream": STREAM,
        "first_seq": 5,
        "last_seq": segment.last_seq,
        "data": segment.data,
        "crc": segment.checksum(STREAM),
    }
    assert Segment.stored(**stored) is not None
    name = data.draw(st.sampled_from(sorted(stored)))
    value = stored[name]
    if isinstance(value, int):
        changed = value ^ 1 << data.draw(st.integers(0, 31))
    elif isinstance(value, str):
        changed = data.draw(st.text(max_size=8).filter(lambda text: text != value))
    else:
        changed = data.draw(st.one_of(shortened(value), flipped(value)))
    assert Segment.stored(**stored | {name: changed}) is None


def shortened(value: bytes):
    return st.integers(0, len(value) - 1).map(lambda length: value[:length])


def flipped(value: bytes):
    def flip(bit: int) -> bytes:
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        return bytes(flipped)

    return st.integers(0, len(value) * 8 - 1).map(flip)
