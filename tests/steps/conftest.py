"""Command steps under each containment, and what is left of them."""

import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from service.steps.command import Command
from tests.steps.upstream import Upstream

OUTPUT_BYTES_MAX = 10 * 1024 * 1024


@pytest.fixture(params=["pid namespace", "watchdog"])
async def command(request: pytest.FixtureRequest) -> AsyncIterator[Command]:
    """A command step under each containment that is to leave no survivor."""
    command = Command(commands=frozenset({"*"}), output_bytes_max=OUTPUT_BYTES_MAX, wanted=request.param)
    if command.containment() != request.param:
        await command.close()
        pytest.skip(f"this kernel does not allow: {request.param}")
    yield command
    await command.close()


@pytest.fixture
async def plain() -> AsyncIterator[Command]:
    """A command step under the strongest containment there is here."""
    command = Command(commands=frozenset({"*"}), output_bytes_max=OUTPUT_BYTES_MAX)
    yield command
    await command.close()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest.fixture
def mark() -> str:
    """A word that only the processes of this test carry in their arguments."""
    return f"mark-{secrets.token_hex(8)}"


@pytest.fixture
def survivors(mark: str) -> Callable[[], list[str]]:
    """The marked processes that are alive, zombies included."""
    return lambda: marked(mark)


def marked(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if mark in line:
                found.append(f"{process.name} {line}")
    return found


def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> bool:
    """Say whether ``condition`` comes true in time; for what happens in other processes."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return condition()
