"""Runs that are appended to, sealed and read at once, by a service that dies in the middle of any of it.

The real sealer, shelf and files, and the real reading of a stream; the threads and the log's disk are made
up. Each reader must get the events of its run, once, in order, whatever of them comes out of segments.
"""

import asyncio
import os
import random
import shutil
import tempfile
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from service.api import stream_read
from service.api.filters import After, EventFilter
from service.api.stream_query import StreamQuery
from service.api.stream_read import open_reading
from service.api.turns import Turns
from service.domain.events import RunComplete, RunStart, StepLog, encode_run_event
from service.errors import LogUnavailable, WrongExpectedSeq
from service.log import NewEvent
from service.segments import Segments, shelf
from service.segments.file import Mark, SegmentFile, frames_path
from service.segments.index import Index, Place
from service.segments.segment import Segment
from tests.segments.house import all_of
from tests.simulation.disk import Disk, SimulatedLog

RUNS = ("a", "b", "c")
EVENTS_MAX = 40
READERS = 4
CRASHES_MAX = 3
SETTLED_S = 500.0
STRETCH_EVENTS_MAX = 4
TIMESTAMP = "2026-01-02T03:04:05.678Z"
SMALL = {
    "service.segments.cut.STRETCH_EVENTS_MAX": STRETCH_EVENTS_MAX,
    "service.segments.sealer.STRETCH_EVENTS_MAX": STRETCH_EVENTS_MAX,
    "service.segments.sealer.PAGE_EVENTS": 3,
    "service.segments.sealer.CUTTERS_MAX": 1,
    "service.api.stream_read.FIRST_PAGE_EVENTS": 2,
    "service.api.stream_read.PAGE_EVENTS": 3,
    "service.api.stream_read.SLOW_PAGE_EVENTS": 2,
    "service.api.stream_read.LONG_PAST_EVENTS": 4,
}


class Died(BaseException):
    """The process ends here."""


class Thread:
    """Does what it is told after a while, and says so after another; nothing any more once it is dead."""

    world: "Sealing"

    def __init__(self, _: str) -> None:
        self.process = self.world.process

    def call(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.later(self.do, answer, function, args)
        return answer

    def do(self, answer: asyncio.Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            result = function(*args)
        except Died:
            self.world.crash()
        except Exception as error:
            self.later(self.answer, answer.set_exception, answer, error)
        else:
            self.later(self.answer, answer.set_result, answer, result)

    def answer(self, give: Callable[[Any], None], answer: asyncio.Future[Any], result: Any) -> None:
        if not answer.done():
            give(result)

    def later(self, step: Callable[..., None], *args: Any) -> None:
        delay = self.world.chance.choice((0.0, 0.0, self.world.chance.random()))
        asyncio.get_running_loop().call_later(delay, self.if_alive, step, *args)

    def if_alive(self, step: Callable[..., None], *args: Any) -> None:
        if self.process == self.world.process:
            step(*args)

    def close(self) -> None:
        pass


class DyingFile(SegmentFile):
    """A segments file that is often not in memory, and whose process may die as it stores."""

    world: "Sealing"

    def store(self, stream: str, segment: Segment, sealed: Mark) -> Place:
        dies = self.world.dies()
        if dies == "in the frames":
            self._frames.append(segment.data[: self.world.chance.randrange(len(segment.data))])
            raise Died
        if dies == "before the row":
            self._frames.append(segment.data)
            raise Died
        place = super().store(stream, segment, sealed)
        if dies == "before the answer":
            raise Died
        return place

    def load_now(self, stream: str, place: Place) -> Segment | None:
        return super().load_now(stream, place) if self.world.chance.random() < 0.5 else None


class Sealing:
    """One seeded history. ``mutations``: what a mutant puts in the place of what; ``sealed`` stretches were read."""

    mutations: ClassVar[dict[str, Any]] = {}

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.disk = Disk()
        self.process = 0
        self.crashes = chance.randint(0, CRASHES_MAX)
        self.calls: dict[asyncio.Task[Any], None] = {}
        self.running: asyncio.Task[None] | None = None
        self.sealed = 0

    async def run(self) -> None:
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        thread, file = type("T", (Thread,), {"world": self}), type("F", (DyingFile,), {"world": self})
        with ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=shm)))
            for name, value in (SMALL | self.mutations).items():
                stack.enter_context(patch(name, value))
            stack.enter_context(patch.object(shelf.Shelf, "worker_class", thread))
            stack.enter_context(patch.object(shelf, "SegmentFile", file))
            for room in ("segments", "shelf", "sealer"):
                stack.enter_context(patch(f"service.segments.{room}.diagnostics", Quiet()))
            self.start()
            try:
                await self.live()
            finally:
                self.kill()
                self.process += 1
                self.close_what_is_left()

    async def live(self) -> None:
        writing = [self.write(run_id) for run_id in RUNS]
        reading = [self.read(self.chance.choice(RUNS)) for _ in range(READERS)]
        everyone = asyncio.gather(*writing, *reading)
        for _ in range(self.chance.randint(0, 2)):
            await asyncio.sleep(self.chance.random() * 20)
            self.crash()
        await everyone
        await asyncio.sleep(SETTLED_S)
        for _ in range(EVENTS_MAX // STRETCH_EVENTS_MAX):  # whoever meets damage has it mended
            await asyncio.gather(*(self.read(run_id) for run_id in RUNS))
            await asyncio.sleep(SETTLED_S)
        for run_id in RUNS:
            await self.check_segments(f"run/{run_id}")

    # The process

    def start(self) -> None:
        self.process += 1
        path = self.directory / f"{self.process}.segments"
        former = self.directory / f"{self.process - 1}.segments"
        for name in (former.name, f"{former.name}-wal", frames_path(former).name):
            if (self.directory / name).exists():
                to = self.directory / name.replace(former.name, path.name)
                shutil.copy(self.directory / name, to)
                if "frames" in name and self.chance.random() < 0.3:  # nobody has flushed them
                    with to.open("r+b") as file:
                        file.truncate(self.chance.randint(0, to.stat().st_size))
        self.log = SimulatedLog(self.disk, self.chance)
        self.turns = Turns()
        self.segments = Segments.open(
            path, self.log, seal_type=RunComplete.type, now=asyncio.get_running_loop().time,
            cache_bytes_max=self.chance.choice((0, 500, 100_000)),
        )  # fmt: skip
        self.running = asyncio.ensure_future(self.segments.run())

    def kill(self) -> None:
        assert self.running is not None
        self.running.cancel()
        self.log.crash()
        for call in list(self.calls):
            call.cancel()
        self.left = self.segments._shelf._file  # its connections are closed once its files have been copied

    def crash(self) -> None:
        """End the process, and begin another one with what it has left on the disk."""
        self.kill()
        self.start()
        self.close_what_is_left()

    def close_what_is_left(self) -> None:
        if self.left is not None:
            self.left.close()

    def dies(self) -> str | None:
        if self.crashes and self.chance.random() < 0.1:
            self.crashes -= 1
            return self.chance.choice(("in the frames", "before the row", "before the answer"))
        return None

    async def inside(self, coroutine: Any) -> Any:
        """Run a call into the process; None when that died meanwhile."""
        call = asyncio.ensure_future(coroutine)
        self.calls[call] = None
        await asyncio.wait([call])
        del self.calls[call]
        return None if call.cancelled() else call.result()

    # Who writes, who reads

    async def write(self, run_id: str) -> None:
        payloads: list[Any] = [RunStart("w", 1, {}, {}, {}, "hash")]
        for _ in range(self.chance.randint(0, EVENTS_MAX)):
            payloads.append(StepLog("s", "info", "x" * self.chance.randint(0, 90), TIMESTAMP))
        payloads.append(RunComplete("success", 1, len(payloads) - 1))
        events = [
            NewEvent(payload.type, encode_run_event(run_id, payload, seq=seq, timestamp=TIMESTAMP))
            for seq, payload in enumerate(payloads)
        ]
        seq = -1
        while seq < len(events) - 1:
            count = self.chance.randint(1, 7)
            if await self.inside(self.append(f"run/{run_id}", events[seq + 1 : seq + 1 + count], seq)):
                seq = min(seq + count, len(events) - 1)
            await asyncio.sleep(self.chance.choice((0.0, 0.0, self.chance.random() * 3)))

    async def append(self, stream: str, batch: list[NewEvent], seq: int) -> bool:
        try:
            await self.log.append(stream, batch, expected_seq=seq)
        except LogUnavailable:
            return False
        except WrongExpectedSeq as wrong:
            return wrong.actual == seq + len(batch)
        return True

    async def read(self, run_id: str) -> None:
        """Read a run to its end, with as many connections as it takes."""
        got: list[tuple[int, bytes]] = []
        await asyncio.sleep(self.chance.choice((0.0, self.chance.random() * 30)))
        while not await self.inside(self.connection(run_id, got)):
            await asyncio.sleep(self.chance.random())
        stored = self.disk.streams[f"run/{run_id}"]
        expected = [(event.seq, event.data) for event in stored[1:-1]]
        assert got == expected, f"{[seq for seq, _ in got]} of {len(expected)}"

    async def connection(self, run_id: str, got: list[tuple[int, bytes]]) -> bool:
        """Read on from behind what there is; return whether the run's end has come."""
        query = StreamQuery(After(got[-1][0] if got else -1), EventFilter(), wait_s=1_000)
        reading = await open_reading(self.log, run_id, query, self.segments, turns=self.turns)
        leaves_after = self.chance.choice((1, 2, 5, 1_000))
        while leaves_after:
            stretch = await reading.next()
            if stretch is not None:
                got += stretch.payloads()
                self.sealed += isinstance(stretch, stream_read.Behind)
                leaves_after -= 1
            elif reading.seal is not None:
                return True
            else:
                await reading.more()
        return False

    async def check_segments(self, stream: str) -> None:
        """What is long is sealed in the end, and the segments are the rows."""
        stored = self.disk.streams[stream]
        found = [each for segment in await all_of(self.segments, stream) for each in segment.payloads(0)]
        assert found == [(event.seq, event.data) for event in stored[1 : len(found) + 1]]
        # A last stretch that was found damaged stays rows when the process dies before it is made again:
        # nobody reads so many rows behind it that it would be worth it.
        rest = len(stored) - 2 - len(found)
        assert rest <= STRETCH_EVENTS_MAX, f"{rest} are not sealed"


class Quiet:
    """Says nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class WholeSegments(stream_read.Behind):
    """Gives all of the segment in which the cursor stands: what lies before it comes twice."""

    def __init__(self, segment: Segment, after: int) -> None:
        super().__init__(segment, min(after, segment.first_seq - 1))


class BlindToGaps(Index):
    """Gives the next segment there is for a stretch that is not sealed (any more)."""

    def find(self, stream: str, seq: int) -> Place | None:
        stretches = self._of(stream)
        return next((place for s in range(seq, seq + 9) if (place := stretches.find(s))), None)


class TrustsTheDisk(Segment, frozen=True, eq=False):
    """Takes whatever the frames file holds for what was written there."""

    @classmethod
    def stored(cls, stream: str, first_seq: int, last_seq: int, data: bytes, crc: int) -> Segment | None:
        sound = Segment.stored(stream, first_seq, last_seq, data, crc)
        if sound is not None or len(data) < 4 * (last_seq - first_seq + 1):
            return sound
        ends = array("I")
        ends.frombytes(data[: (last_seq - first_seq + 1) * 4])
        return Segment(first_seq, data, ends)


MUTANTS = {
    name: type(name, (Sealing,), {"mutations": {target: mutant}})
    for name, target, mutant in (
        ("whole segments", "service.api.stream_read.Behind", WholeSegments),
        ("blind to gaps", "service.segments.shelf.Index", BlindToGaps),
        ("trusts the disk", "service.segments.file.Segment", TrustsTheDisk),
    )
}
