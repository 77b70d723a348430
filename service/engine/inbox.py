"""What can happen to a run, and the one bounded place where it waits until the runner looks."""

import asyncio
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from service.domain.decide import Ended
from service.domain.events import Level

LINES_WAITING_MAX = 2_000  # beyond it a step waits before it may say more


class Lines(Struct, frozen=True):
    """What an attempt said, line by line."""

    step_id: str
    level: Level
    texts: Sequence[str]


class AttemptEnded(Struct, frozen=True):
    """How an attempt ended; what it said before is already in the inbox."""

    step_id: str
    ended: Ended


class CancelWished(Struct, frozen=True):
    """A wish from ``signal/<id>`` that the run stop."""

    by: str
    reason: str | None
    signal_seq: int


Message = Lines | AttemptEnded | CancelWished


class Inbox:
    """Messages in order of arrival. Lines wait for room; ends and wishes are few and never wait."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._woken = False
        self._asleep: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._lines_waiting = 0

    def __len__(self) -> int:
        return len(self._messages)

    def post(self, message: AttemptEnded | CancelWished) -> None:
        """Add a message and wake the runner."""
        self._messages.append(message)
        self.wake()

    def say(self, step_id: str, level: Level, lines: Sequence[str]) -> bool:
        """Add lines and wake the runner; return whether there is ``room`` for more."""
        if lines:
            self._messages.append(Lines(step_id, level, lines))
            self._lines_waiting += len(lines)
            self.wake()
        if self._lines_waiting > LINES_WAITING_MAX:
            self._room.clear()
        return self._room.is_set()

    async def room(self) -> None:
        """Return once there is room for more lines."""
        await self._room.wait()

    def take(self, lines_max: int) -> Message:
        """Remove and return the oldest message, of lines at most ``lines_max``."""
        message = self._messages.popleft()
        if isinstance(message, Lines):
            message = self._some(message, lines_max)
            self._lines_waiting -= len(message.texts)
            if self._lines_waiting <= LINES_WAITING_MAX // 2:
                self._room.set()
        return message

    def _some(self, lines: Lines, lines_max: int) -> Lines:
        texts = lines.texts
        if len(texts) <= lines_max:
            return lines
        self._messages.appendleft(Lines(lines.step_id, lines.level, texts[lines_max:]))
        return Lines(lines.step_id, lines.level, texts[:lines_max])

    def wake(self) -> None:
        """Make the runner look again although there is no message."""
        self._woken = True
        if self._asleep is not None and not self._asleep.done():
            self._asleep.set_result(None)

    async def wait(self, delay_s: float | None) -> None:
        """Sleep until woken, at most ``delay_s`` seconds (None: until woken)."""
        if self._messages or self._woken:
            await asyncio.sleep(0)
        else:
            loop = asyncio.get_running_loop()
            self._asleep = loop.create_future()
            timer = None if delay_s is None else loop.call_later(delay_s, self.wake)
            try:
                await self._asleep
            finally:
                self._asleep = None
                if timer is not None:
                    timer.cancel()
        self._woken = False
