"""Many clients of one run while it is written: whoever joins when and however gets what the final list says.

``python -m tests.api.live_fuzz --seeds 100``; the test beside it runs few. A seed decides what is written and
who reads; when is the machine's, so a seed that has failed once may have to run often to fail again.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from msgspec import Raw
from msgspec.json import decode

from tests.api.asked import any_query, passing
from tests.api.live_run import CHUNKS, LiveRun
from tests.api.live_ways import WAYS, over_websocket, page_of
from tests.server import Server

READERS = 64
COMMON = ({}, {}, {"types": "all"}, {"types": "step_log", "stepId": "a"})
FILTER = {"types", "stepId", "level"}
SEED_TIMEOUT_S = 240


class Reader:
    """One client: how it asked, what it has got, and what was said to it about that, connection by connection."""

    def __init__(self, run: LiveRun, seed: str) -> None:
        self.run = run
        self.chance = random.Random(seed)
        self.way = self.chance.choice([*WAYS, over_websocket, over_websocket, page_of])
        self.joins_at = self.chance.randrange(CHUNKS + 2)
        self.slow = self.chance.random() < 0.3
        self.early = False  # it joined before the run was there
        self.asked: dict[str, str] = {}
        self.head_at_join = 0
        self.connections: list[list[dict]] = []  # the messages of each, decoded
        self.got: list[bytes] = []

    def __repr__(self) -> str:
        return f"{self.way.__name__} {self.asked} joined at {self.joins_at}, slow: {self.slow}"

    async def read(self) -> None:
        """Join in time and read to the end."""
        self.early = self.way is not page_of and self.chance.random() < 0.1
        if not self.early:
            await self.run.written[self.joins_at].wait()
        self.head_at_join = self.run.head
        self.asked = any_query(self.chance, self.head_at_join)
        if self.chance.random() < 0.7:  # many with one filter share what is pushed to them
            for name in FILTER & self.asked.keys():
                del self.asked[name]
            self.asked |= self.chance.choice(COMMON)
        if self.early:
            self.asked["wait"] = "60s"
        if self.way is page_of:
            await self._turn_pages()
        else:
            while not await self._follow():
                pass

    async def _follow(self) -> bool:
        """Read one connection; return whether it came to the end, and was not given up on the way."""
        asked = self.asked | ({"after": str(decode(self.got[-1])["seq"])} if self.got else {})
        leaves_after = self.chance.choice([0, 1, 10, 100, 1000])  # 0: never
        self.connections.append([])
        count = 0
        async with aclosing(self.way(self.run.server, self.run.id, asked, slow=self.slow)) as messages:
            async for message in messages:
                said = decode(message)
                self.connections[-1].append(said)
                if said["type"].startswith("stream."):
                    continue
                self.got.append(message)
                count += 1
                if self.slow and self.chance.random() < 0.005:
                    await self.run.goes_on(self.chance.randrange(1, CHUNKS))
                if count == leaves_after:
                    return False
        return True

    async def _turn_pages(self) -> None:
        asked = {name: value for name, value in self.asked.items() if name != "control"}
        if asked.get("after", "0").isdecimal() is False:
            del asked["after"]
        self.asked = asked
        asked = asked | {"limit": self.chance.choice(["20", "100", "1000"]), "wait": "200ms"}
        while True:
            page = await page_of(self.run.server, self.run.id, asked)
            self.got += [bytes(event) for event in decode(page["data"], type=list[Raw])]
            cursor, last_seq = decode(page["nextCursor"]), decode(page["lastSeq"])
            status = decode(page["status"])
            assert (status is None) == (cursor is not None)
            if status == "success":
                return
            asked["after"] = str(last_seq if cursor is None else cursor)


def check(reader: Reader) -> None:
    """Assert that a reader has got what it asked for, and was told the truth about it."""
    events = reader.run.events
    found = passing(events, reader.asked)
    after = reader.asked.get("after", "")
    assert reader.connections or reader.way is page_of
    if reader.asked.get("control"):
        for messages in reader.connections:
            check_controls(messages, events)
        start = check_hello(reader, after, found) if reader.connections[0] else len(events)
    elif after == "tail" or after.startswith("-"):
        check_suffix(reader, after, found)
        return
    else:
        start = int(after or -1)
    assert reader.got == [data for seq, data in found if seq > start]


def check_hello(reader: Reader, after: str, found: list[tuple[int, bytes]]) -> int:
    """Return behind which seq the stream says that it begins, which must be where it was asked to."""
    told = reader.connections[0][0]["payload"]
    start = -1 if told["after"] is None else told["after"]
    # A finished run's lastSeq is that of its steps; its seal comes behind that.
    head = told["lastSeq"] + (told["status"] == "success")
    if reader.early and start == -1 and not after.isdecimal():
        pass  # it was there before the run was, so that all is new to it
    elif after == "tail":
        assert start == head
    elif after.startswith("-"):
        before = [seq for seq, _ in found if seq <= head]
        assert len([seq for seq in before if seq > start]) == min(-int(after), len(before))
    else:
        assert start == int(after or -1)
    return start


def check_controls(messages: list[dict], events: list[bytes]) -> None:
    """Assert what one connection with control=1 was told: in its order, and nothing twice."""
    said = [message["type"] for message in messages if "seq" not in message]
    over = said[-1:] == ["stream.end"]
    assert messages == [] or said[0] == messages[0]["type"] == "stream.hello"
    assert said.count("stream.hello") == bool(messages)
    assert said.count("stream.caught_up") <= 1
    assert not over or said.count("stream.caught_up") == said.count("stream.end") == 1
    cursors = [
        message["seq"] if "seq" in message else message["payload"].get("seq", -1) for message in messages
    ]
    cursors = [cursor for cursor in cursors if cursor >= 0]
    assert cursors == sorted(cursors), "a cursor that would skip what is still to come"
    if over:
        assert messages[-1]["payload"]["lastSeq"] == len(events) - 2


def check_suffix(reader: Reader, after: str, found: list[tuple[int, bytes]]) -> None:
    """Without control nobody says where it began: it is a suffix, of about the right length."""
    data = [data for _, data in found]
    assert reader.got == data[len(data) - len(reader.got) :]
    known = 0 if reader.early else len([seq for seq, _ in found if seq <= reader.head_at_join])
    if after == "tail":
        assert len(reader.got) <= len(data) - known
    else:
        assert len(reader.got) >= min(-int(after), known)


async def fuzz(server: Server, directory: Path, seed: int) -> list[Reader]:
    """Write a run, have it read by all, check what they got, and return them."""
    run = LiveRun(server, directory, random.Random(seed))
    readers = [Reader(run, f"{seed}/{number}") for number in range(READERS)]
    async with asyncio.timeout(SEED_TIMEOUT_S), asyncio.TaskGroup() as group:
        group.create_task(run.write())
        for reader in readers:
            group.create_task(reader.read())
    for reader in readers:
        try:
            check(reader)
        except AssertionError as error:
            error.add_note(f"seed {seed}: {reader}")
            raise
    return readers


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    events = connections = 0
    with tempfile.TemporaryDirectory() as directory, Server(Path(directory)) as server:
        for seed in range(options.first, options.first + options.seeds):
            for reader in asyncio.run(fuzz(server, Path(directory), seed)):
                events += len(reader.got)
                connections += len(reader.connections)
    readers = options.seeds * READERS
    print(
        f"{readers} readers, {connections} connections, {events} events, all right, {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
