"""A run that is being written, and clients who fall out of its live set and come back, at every moment.

The real code of the stream over WebSocket serves them; only the sockets are made up. What each client has
received when its run is over must be the run, once, in order.
"""

import asyncio
import random
from functools import partial
from typing import Any

from service.api.filters import DEFAULT_TYPES, After, EventFilter
from service.api.patience import SHUTTING_DOWN
from service.api.problems import Problem
from service.api.readers import Readers
from service.api.stream_live import Crowd, LiveRuns, Watcher
from service.api.stream_query import StreamQuery
from service.api.stream_read import Reading, open_reading
from service.api.stream_ws import Opening, stream_over_websocket
from service.api.turns import Turns
from service.domain.events import RunComplete, RunStart, StepLog, encode_run_event
from service.log import NewEvent, Recorded
from service.log.memory import MemoryLog
from service.wire.outgoing import EXTENSION
from service.wire.parking import PARKING, WOKEN

EVENTS = 40
CLIENTS = 6
TIMESTAMP = "2026-01-02T03:04:05.678Z"
REVOKED = Problem(401, "The key was revoked.")  # in mid-stream; the client has another one
FRAME_HEAD_BYTES = 4  # of the larger ones; none is as small as that
FILTERS = (EventFilter(), EventFilter(DEFAULT_TYPES | {"run_complete"}), EventFilter(level="warn"))


class Connection:
    """A WebSocket on a network that takes what it likes. ``got``: the payloads of the frames it took."""

    stall_timeout_s = 60.0
    stall_reason = None
    gave_up = 0

    def __init__(self, chance: random.Random, got: list[bytes]) -> None:
        self.chance = chance
        self.got = got
        self.closed: int | None = None
        self.left = False
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.inbox.put_nowait({"type": "websocket.connect"})
        self.full = False
        self.begun = bytearray()  # a frame of which only a part was taken
        self.parked_pushes = 0

    @property
    def scope(self) -> dict[str, Any]:
        return {"extensions": {EXTENSION: self, PARKING: self}}

    async def receive(self) -> dict[str, Any]:
        return await self.inbox.get()

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.close" and not self.left:
            self.closed = message["code"]
        if "preframed" not in message or (self.left and message["type"] == "websocket.accept"):
            return
        while self.full and not self.left:
            await asyncio.sleep(self.chance.random())
            self.full = self.chance.random() < 0.3
        if self.left:
            raise OSError("gone")
        self.take(message["preframed"])

    def push(self, frames: bytes) -> bool:
        assert not self.begun, "nothing may come within a frame"
        if self.left or self.full:
            return False
        self.parked_pushes += 1
        self.take(frames)
        return True

    def push_some(self, frames: memoryview) -> int:
        if self.left or self.full:
            return 0
        taken = self.chance.choice((len(frames), self.chance.randint(0, len(frames))))
        self.take(frames[:taken])
        return taken

    def wake(self) -> None:
        self.inbox.put_nowait({"type": WOKEN})

    def take(self, frames: bytes | memoryview) -> None:
        self.full = self.chance.random() < 0.3
        self.begun += frames
        while len(self.begun) >= FRAME_HEAD_BYTES:
            length, header = self.begun[1], 2
            if length == 126:
                length, header = int.from_bytes(self.begun[2:4], "big"), 4
            if len(self.begun) < header + length:
                return
            self.got.append(bytes(self.begun[header : header + length]))
            del self.begun[: header + length]

    def leave(self) -> None:
        self.left = True
        self.inbox.put_nowait({"type": "websocket.disconnect"})


class Crowds:
    """One seeded history. ``live_class`` is what a mutant replaces."""

    live_class: type[LiveRuns] = LiveRuns

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.log = MemoryLog()
        self.closing = asyncio.Event()
        self.readers = Readers()
        self.pushed = 0
        self.stops = chance.random() < 0.2

    async def run(self) -> None:
        self.live = self.live_class(self.log)
        self.turns = Turns()
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self.live.run(self.closing))
            async with asyncio.TaskGroup() as everyone:
                everyone.create_task(self.write())
                for _ in range(CLIENTS):
                    everyone.create_task(self.watch(self.chance.choice(FILTERS)))
                if self.stops:
                    asyncio.get_running_loop().call_later(self.chance.random() * 20, self.shut_down)
            assert len(self.live) == 0, "somebody is still parked"
            self.closing.set()
            await serving

    def shut_down(self) -> None:
        self.closing.set()
        self.readers.end_all()

    async def write(self) -> None:
        await self.append(-1, [RunStart("w", 1, {}, {}, {}, "hash")])
        seq = 0
        while seq < EVENTS:
            last = min(seq + self.chance.randint(1, 4), EVENTS)
            levels = [self.chance.choice(("info", "warn")) for _ in range(seq, last)]
            await self.append(
                seq, [StepLog("s", level, "x" * self.chance.randint(1, 90), TIMESTAMP) for level in levels]
            )
            seq = last
            await asyncio.sleep(self.chance.choice((0.0, 0.0, self.chance.random() * 2)))
        await self.append(seq, [RunComplete("success", 1, EVENTS)])

    async def append(self, seq: int, payloads: list[Any]) -> None:
        events = [
            NewEvent(p.type, encode_run_event("r", p, seq=seq + n, timestamp=TIMESTAMP))
            for n, p in enumerate(payloads, 1)
        ]
        await self.log.append("run/r", events, expected_seq=seq)

    async def watch(self, where: EventFilter) -> None:
        """Watch to the end, with as many connections as it takes."""
        await asyncio.sleep(self.chance.random() * 10)
        while await self.log.wait("run/r", after=-2) < 0:
            await asyncio.sleep(1)
        got: list[bytes] = []
        seqs: list[int] = []
        closed = None
        while closed is None:
            after = seqs[-1] if seqs else -1
            connection = Connection(self.chance, fresh := [])
            closed = await self.connect(connection, where, after)
            got += fresh
            seqs = [self.seq_of(data) for data in got]
            self.pushed += connection.parked_pushes
        assert closed == 1000 or (closed == 1012 and self.stops), closed
        expected = [
            event.data for event in where.passing(await self.log.read("run/r", after=-1, limit=1_000))
        ]
        if closed == 1012:
            expected = expected[: len(got)]
        assert got == expected, f"{seqs} instead of {[self.seq_of(data) for data in expected]}"

    async def connect(self, connection: Connection, where: EventFilter, after: int) -> int | None:
        query = StreamQuery(After(after), where)
        with self.readers.one("r", "websocket") as reader:
            if self.closing.is_set():
                reader.end(SHUTTING_DOWN)
            if self.chance.random() < 0.1:
                asyncio.get_running_loop().call_later(self.chance.random() * 8, reader.end, REVOKED)
            opening: Reading | Opening = partial(open_reading, self.log, "r", query, turns=self.turns)
            if self.chance.random() < 0.5:
                opening = await open_reading(self.log, "r", query, turns=self.turns)
            serving = asyncio.ensure_future(
                stream_over_websocket(
                    connection.scope, connection.receive, connection.send, opening,
                    live=self.live, reader=reader, stall_timeout_s=60.0,
                )
            )  # fmt: skip
            if self.chance.random() < 0.4:
                asyncio.get_running_loop().call_later(self.chance.random() * 8, connection.leave)
            await serving
        return None if connection.closed == REVOKED.close_code else connection.closed

    @staticmethod
    def seq_of(data: bytes) -> int:
        return int(data.split(b'"seq":')[1].split(b",")[0])


class JoinsWithoutLooking(LiveRuns):
    """Parks whoever comes, wherever it stands: what lies in between is lost, or comes twice."""

    def park(self, watcher: Watcher, stream: str, where: EventFilter) -> bool:
        crowd = self._crowds.get((stream, where))
        if crowd is None:
            return super().park(watcher, stream, where)
        watcher.crowd = crowd
        crowd.watchers[watcher] = None
        return True


class TakesAheadForBehind(LiveRuns):
    """Pushes the whole page to those who are further on than the crowd."""

    def park(self, watcher: Watcher, stream: str, where: EventFilter) -> bool:
        parked = super().park(watcher, stream, where)
        if parked and watcher.crowd and watcher in watcher.crowd.ahead:
            del watcher.crowd.ahead[watcher]
            watcher.crowd.watchers[watcher] = None
        return parked


class ForgetsWhoFellOut(LiveRuns):
    """Counts as sent what a full client refused."""

    async def _flush(self, crowd: Crowd, last_seq: int, passing: list[Recorded]) -> None:
        for watcher in [*crowd.watchers]:
            watcher.after = last_seq
        await super()._flush(crowd, last_seq, passing)


class NeverWakesAtTheEnd(LiveRuns):
    """Leaves the parked asleep when the run is over."""

    async def _tail(self, crowd: Crowd) -> None:
        crowd.release_all = lambda: None
        await super()._tail(crowd)


MUTANTS = {
    mutant.__name__: type(mutant.__name__, (Crowds,), {"live_class": mutant})
    for mutant in (JoinsWithoutLooking, TakesAheadForBehind, ForgetsWhoFellOut, NeverWakesAtTheEnd)
}
