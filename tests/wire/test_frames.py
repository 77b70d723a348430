"""Our frames as the websockets library's own parser reads them, and the joining of many."""

import random

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from service.log import Recorded
from service.wire.frames import (
    JOINED_BYTES_MAX,
    server_sent_event,
    server_sent_events,
    text_frame,
    text_frames,
)

LENGTHS = (0, 1, 124, 125, 126, 127, 4095, 4096, 65535, 65536, 65537, 300_000)


def parsed(data: bytes) -> list[bytes]:
    """Return the messages that a client of the websockets library finds in ``data``."""
    client = ClientProtocol(parse_uri("ws://x/"), max_size=None, state=State.OPEN)
    client.receive_data(data)
    assert client.parser_exc is None
    frames = client.events_received()
    assert all(frame.opcode is Opcode.TEXT and frame.fin for frame in frames)
    return [bytes(frame.data) for frame in frames]


def events(*lengths: int) -> list[Recorded]:
    return [Recorded("run/r", seq, seq, "t", b"x" * length, 0) for seq, length in enumerate(lengths, start=7)]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_frame_of_every_header_size_is_read_back(length):
    data = random.Random(length).randbytes(length // 2).hex().encode().ljust(length, b"x")
    assert len(data) == length
    assert parsed(text_frame(data)) == [data]


def test_joined_frames_are_read_back_in_order():
    given = events(*LENGTHS, *reversed(LENGTHS))
    joined = list(text_frames(given))
    assert parsed(b"".join(frames for frames, _ in joined)) == [event.data for event in given]
    assert joined[-1][1] == given[-1].seq


@pytest.mark.parametrize("framed", [text_frames, server_sent_events])
def test_a_join_ends_at_its_limit_and_a_larger_frame_stands_alone(framed):
    given = events(*[1000] * 200, 100_000, 10)
    joined = list(framed(given))
    assert all(len(frames) <= JOINED_BYTES_MAX or seq == 207 for frames, seq in joined)
    assert [seq for _, seq in joined][-2:] == [207, 208]
    assert min(len(frames) for frames, _ in joined[:3]) > JOINED_BYTES_MAX - 1100
    assert list(framed([])) == []


def test_a_server_sent_event_is_unnamed_with_its_seq_as_id():
    assert server_sent_event(Recorded("run/r", 12, 99, "t", b'{"a":1}', 0)) == b'id: 12\ndata: {"a":1}\n\n'
