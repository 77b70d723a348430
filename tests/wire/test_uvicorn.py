"""The names inside uvicorn and websockets that wire leans on: an update that moves one is noticed here."""

import asyncio
from importlib.metadata import version
from inspect import signature

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState
from websockets.server import ServerProtocol

from service.wire.connection import Connection
from service.wire.protocol import HttpProtocol, StreamProtocol

METHODS = {
    StreamProtocol: [
        "connection_made", "connection_lost", "data_received", "handle_events", "handle_connect", "handle_ping",
        "handle_close", "handle_parser_exception", "receive", "send", "start_keepalive", "shutdown", "send_500_response",
    ],
    HttpProtocol: [
        "connection_made", "connection_lost", "data_received", "handle_websocket_upgrade", "on_message_begin",
        "on_url", "_start_asgi_task", "on_header", "on_headers_complete", "on_message_complete", "send_400_response", "shutdown",
        "pause_writing", "resume_writing",
    ],
}  # fmt: skip
OURS = {"push", "push_some", "wake", "check", "refused"}  # service/wire/parking.py, rounds.py and server.py
ATTRIBUTES = {
    StreamProtocol: [
        "conn", "loop", "logger", "queue", "curr_msg_data_type", "close_sent", "close_timer",
        "handshake_complete", "server", "client", "initial_response", "disconnected", "writable", "ping_interval", "ping_timeout", "frames",
    ],
    HttpProtocol: ["loop", "cycle", "pipeline", "transport", "parser"],
}  # fmt: skip


def test_uvicorn_is_the_pinned_one():
    assert version("uvicorn") == "0.54.0"


@pytest.mark.parametrize("protocol", METHODS)
def test_every_overridden_method_exists_in_uvicorn(protocol):
    base = protocol.__mro__[1]
    assert [name for name in METHODS[protocol] if not hasattr(base, name)] == []
    ours = {name for name in vars(protocol) if not name.startswith("_") and callable(vars(protocol)[name])}
    assert ours - OURS <= set(METHODS[protocol])
    assert not any(hasattr(base, name) for name in OURS), "uvicorn means something else by that"


@pytest.mark.parametrize("protocol", ATTRIBUTES)
async def test_every_attribute_exists_in_uvicorn(protocol):
    config = uvicorn.Config(lambda scope: None, ws=StreamProtocol, http=HttpProtocol)
    config.load()
    made = protocol.__mro__[1](config, ServerState(), {}, _loop=asyncio.get_running_loop())
    assert [name for name in ATTRIBUTES[protocol] if name not in vars(made)] == []
    assert not vars(made).keys() & {"counted", "gave_up", "outgoing", "unread"}, (
        "uvicorn means something else by that"
    )


async def test_every_attribute_has_its_slot():
    config = uvicorn.Config(lambda scope: None, ws=StreamProtocol, http=HttpProtocol)
    config.load()
    made = StreamProtocol(config, ServerState(), {}, _loop=asyncio.get_running_loop())
    assert vars(made) == {}, "uvicorn has new ones: every connection has a dict again"


def test_what_an_answer_without_chunks_sets_exists_in_uvicorn():
    made = RequestResponseCycle(**dict.fromkeys(list(signature(RequestResponseCycle).parameters)))
    assert made.chunked_encoding is None
    used = {"chunked_encoding", "disconnected", "expected_content_length", "keep_alive", "response_complete"}
    assert used <= set(vars(made))


def test_what_connection_changes_exists_in_websockets():
    base = Connection.__mro__[1]
    assert base is ServerProtocol
    assert {"receive_data", "recv_frame", "send_response"} <= set(dir(base))
    assert {"close_sent", "current_size", "events", "parser_exc", "reader", "writes"} <= set(vars(base()))
    assert "buffer" in vars(base().reader)
