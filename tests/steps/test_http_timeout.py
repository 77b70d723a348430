"""How long an http step waits for its answer: what its config says, else the step, else the default."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.domain.decide import Ended
from service.domain.definition import parse_definition
from service.engine.attempt import perform
from service.engine.inbox import Inbox
from service.engine.secrets import Masking
from service.steps.http import Http

ANSWERS_AFTER_S = 0.5


@pytest.fixture
async def slow(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The address of a server that answers after the default timeout."""
    monkeypatch.setattr("service.steps.http.TIMEOUT_MS", 100)

    conversations = []

    async def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.append(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(ANSWERS_AFTER_S)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(came, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await asyncio.gather(*filter(None, conversations))


async def performed(step: dict[str, Any]) -> Ended:
    http = Http(http_allow=("127.0.0.1",))
    definition = parse_definition({"steps": {"ask": {"type": "http", **step}}}, kinds={"http": http})
    spec, masking = definition.steps["ask"], Masking({}, [])
    try:
        async with asyncio.timeout(20):
            return await perform(
                http, spec, {}, masking, number=1, run_id="r", elapsed_ms=0, inbox=Inbox(), trace={}
            )
    finally:
        await http.close()


@pytest.mark.parametrize(
    ("step", "config", "said"),
    [
        (None, None, "had no complete answer after 100 ms."),
        ("10s", None, None),
        (None, "10s", None),
        ("10s", "150ms", "had no complete answer after 150 ms."),
        ("150ms", "10s", "Not done within 0.15 s."),
        ("150ms", None, "Not done within 0.15 s."),
    ],
)
async def test_the_config_s_timeout_then_the_step_s_then_the_default(
    slow: str, step: str | None, config: str | None, said: str | None
) -> None:
    ended = await performed({"timeout": step, "config": {"url": slow, "timeout": config}})
    if said is None:
        assert (ended.status, ended.error) == ("success", None)
    else:
        assert ended.error is not None
        assert (ended.status, ended.error.code) == ("timeout", "timeout")
        assert said in ended.error.message
