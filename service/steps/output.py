"""A running command's output: each line recorded as it is written, the whole kept as far as it fits."""

import asyncio
import os

from service.domain.events import Error, Level
from service.steps import Emit, Outcome
from service.steps.containment import Contained
from service.steps.documents import Document, decode_body, recorded
from service.steps.lines import LineSplitter
from service.steps.pipe import Pipe

LINES_AT_ONCE_MAX = 500  # to mask and record more would hold up others
KEPT_BYTES_MAX = 1024 * 1024  # of stdout and of stderr each, for the document; more is only counted
SIGNAL_EXIT_BASE = 128  # exitCode of a command that a signal ended, as shells count
_NAMED = ("stdout", "stderr", "exitCode", "stdoutBytes", "stderrBytes")


class _Room:
    """What one step may still record, in bytes; what came after that was dropped."""

    def __init__(self, bytes_max: int) -> None:
        self.left = bytes_max
        self.dropped = 0

    def take(self, data: bytes) -> bytes:
        taken = data[: self.left]
        self.left -= len(taken)
        self.dropped += len(data) - len(taken)
        return taken


class _Kept:
    """The beginning of an output, and how long all of it was, in bytes."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.bytes = 0

    def add(self, data: bytes) -> None:
        self.bytes += len(data)
        self._data += data[: KEPT_BYTES_MAX - len(self._data)]

    @property
    def whole(self) -> bool:
        return len(self._data) == self.bytes

    def text(self) -> str:
        return self._data.decode("utf-8", "replace")

    def members(self) -> Document:
        """Return the keys of the JSON object that this is, if it is one."""
        if not self.whole or not self._data.lstrip().startswith(b"{"):
            return {}
        value = decode_body(bytes(self._data))
        return value if isinstance(value, dict) else {}


async def perform(
    command: Contained,
    emit: Emit,
    *,
    expect_exit: tuple[str, ...],
    output_bytes_max: int,
    timeout_ms: int | None,
) -> Outcome:
    """Record the lines of ``command`` until it is gone, and return what came of it.

    On every way out, cancelled or not, nothing of the command is left.
    """
    room, stdout, stderr = _Room(output_bytes_max), _Kept(), _Kept()
    timed_out = False
    status: int | None = None
    try:
        async with (
            asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000),
            asyncio.TaskGroup() as group,
        ):
            group.create_task(_record(command.stdout, "info", emit, room, stdout))
            group.create_task(_record(command.stderr, "warn", emit, room, stderr))
            status = await command.gone()
    except TimeoutError:
        timed_out = True
    finally:
        await command.end()
    if room.dropped:
        await emit("warn", [f"Output over {output_bytes_max} bytes was not recorded: {room.dropped} bytes."])
    exit_code = None if timed_out or status is None else _exit_code(status)
    document, small = _documents(stdout, stderr, exit_code)
    if timed_out:
        error = Error("timeout", f"The command was ended after {timeout_ms} ms.")
        return Outcome("timeout", document, small, error)
    if exit_code is None:
        return Outcome("failed", document, small, Error("killed", "The command was killed from outside."))
    if str(exit_code) in expect_exit:
        return Outcome("success", document, small)
    return Outcome("failed", document, small, Error("exit_code", f"The command ended with {exit_code}."))


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else SIGNAL_EXIT_BASE - code


async def _record(output: Pipe, level: Level, emit: Emit, room: _Room, kept: _Kept) -> None:
    splitter = LineSplitter()
    many: list[str] = []

    def take(data: bytes) -> bool:
        kept.add(data)
        lines = splitter.feed(room.take(data))
        if len(lines) <= LINES_AT_ONCE_MAX:
            return emit.at_once(level, lines)
        many.extend(lines)
        return False

    while await output.give(take):
        for start in range(0, len(many), LINES_AT_ONCE_MAX):
            await emit(level, many[start : start + LINES_AT_ONCE_MAX])
        many.clear()
        await emit.room()
    await emit(level, splitter.end())


def _documents(stdout: _Kept, stderr: _Kept, exit_code: int | None) -> tuple[Document, Document | None]:
    """Return the document, and what of it fits into an event when that is less: lengths replace texts."""
    own = {key: value for key, value in stdout.members().items() if key not in _NAMED}
    outputs = {"stdout": stdout, "stderr": stderr}
    longer = "stderr" if stderr.bytes > stdout.bytes else "stdout"
    named = {name: kept.text() for name, kept in outputs.items()} | {"exitCode": exit_code}
    named |= {f"{name}Bytes": kept.bytes for name, kept in outputs.items() if not kept.whole}

    def without(*names: str) -> Document:
        rest = {key: value for key, value in named.items() if key not in names}
        return rest | {f"{name}Bytes": outputs[name].bytes for name in names}

    document = own | named
    small = recorded(
        document,
        lambda: own | without(longer),
        lambda: own | without("stdout", "stderr"),
        lambda: without(longer),
        lambda: without("stdout", "stderr"),
    )
    return document, small
