"""A WebSocket that is forgotten between two messages: nobody can tell it from one that is kept."""

import logging
import random

import pytest
from websockets.http11 import Request
from websockets.protocol import CONNECTING, OPEN

from service.wire.connection import Connection, ends_with_close
from tests.wire.server import UPGRADE, client_frame

LOGGER = logging.getLogger("tests.wire")
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def connection() -> Connection:
    return Connection(4096, LOGGER, OPEN)


def said(chance: random.Random) -> bytes:
    """Return what a client may say: messages whole and in pieces, control frames anywhere, at last a close."""
    frames = []
    for _ in range(chance.randint(1, 8)):
        data = bytes(chance.choices(b"abc", k=chance.choice((0, 1, 5, 126, 300))))
        pieces = chance.choice((1, 1, 2, 3))
        for number in range(pieces):
            opcode = 0 if number else chance.choice((TEXT, BINARY))
            frames.append(client_frame(opcode, data, fin=number == pieces - 1))
            if chance.random() < 0.3:
                frames.append(client_frame(chance.choice((PING, PONG)), data[:100]))
    if chance.random() < 0.2:
        frames.append(
            chance.choice((client_frame(0, b"x"), client_frame(3, b""), client_frame(TEXT, b"x" * 5000)))
        )
    if chance.random() < 0.5:
        frames.append(client_frame(CLOSE, (1000).to_bytes(2, "big") + b"bye"))
    return b"".join(frames)


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    places = sorted(chance.choices(range(len(data) + 1), k=chance.randint(0, len(data) // 3)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


def heard(one: Connection, piece: bytes) -> tuple:
    one.receive_data(piece)
    events = [(event.opcode, bytes(event.data), event.fin) for event in one.events_received()]
    return events, b"".join(one.data_to_send()), one.state, one.close_rcvd, str(one.parser_exc)


@pytest.mark.parametrize("seed", range(300))
def test_it_goes_on_as_one_that_is_kept(seed):
    chance = random.Random(seed)
    kept, begun_again, forgotten = connection(), connection(), 0
    for piece in cut(said(chance), chance):
        if begun_again.between_messages:
            begun_again, forgotten = connection(), forgotten + 1
        assert heard(begun_again, piece) == heard(kept, piece)
        if kept.eof_sent:
            break
    assert forgotten, "it never was between two messages"


def test_it_is_between_messages_after_whole_ones_that_have_been_answered():
    one = connection()
    assert one.between_messages
    one.receive_data(client_frame(TEXT, b"whole") + client_frame(PING, b""))
    assert not one.between_messages, "nobody has asked what came"
    one.events_received()
    assert not one.between_messages, "the PONG is still here"
    one.data_to_send()
    assert one.between_messages


@pytest.mark.parametrize("pieces", [1, 2, 6, 7])
def test_it_is_not_within_a_frame(pieces):
    one = connection()
    one.receive_data(client_frame(TEXT, b"ab")[:pieces])  # after 2 and 6 its buffer is empty
    assert not one.between_messages


def test_it_is_from_the_answer_to_the_handshake_on():
    one = Connection(4096, LOGGER, CONNECTING)
    one.receive_data(UPGRADE.format(path="/", headers="").encode())
    (request,) = one.events_received()
    assert isinstance(request, Request)
    assert not one.between_messages
    one.send_response(one.accept(request))
    assert not one.between_messages
    one.data_to_send()
    assert one.between_messages


def test_it_is_never_again_once_it_closes():
    one = connection()
    one.send_close(1000)
    one.data_to_send()
    assert not one.between_messages


CLOSED = [
    client_frame(CLOSE, b""),
    client_frame(CLOSE, (1009).to_bytes(2, "big")),
    client_frame(CLOSE, (1000).to_bytes(2, "big") + b"x" * 123),
    b"\x88\x82mask" + bytes(a ^ b for a, b in zip((1009).to_bytes(2, "big"), b"ma", strict=True)),
    b"\x88\x00",
    b"\x88\x02" + (1009).to_bytes(2, "big"),
]


@pytest.mark.parametrize("close", CLOSED)
@pytest.mark.parametrize("before", [b"", b"x" * 500, b"\x88", CLOSED[1], b"\x88\x88\x85"])
def test_after_a_failure_it_knows_the_answer_to_its_close_in_any_pieces(before, close):
    said = before + close
    for at in range(len(said)):
        one = connection()
        one.fail(1009)
        assert not one.answered(said[:at]) or said[:at] == before
        assert one.answered(said[at:])


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x88",
        b"\x88\x80",
        b"\x88\x80abc",
        client_frame(CLOSE, b"x"),
        client_frame(CLOSE, (1001).to_bytes(2, "big")),
        client_frame(CLOSE, b"x" * 126),
        client_frame(CLOSE, b"")[:-1],
        client_frame(CLOSE, b"") + b"x",
        client_frame(TEXT, b""),
    ],
)
def test_nothing_else_is_an_answer(said):
    one = connection()
    one.fail(1009)
    assert not one.answered(said)


def test_hardly_any_other_bytes_look_like_an_answer():
    chance = random.Random(1)
    assert sum(ends_with_close(chance.randbytes(400), {1000, 1009}) for _ in range(5_000)) <= 2
