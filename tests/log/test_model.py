"""Any sequence of calls, compared with a dict of lists: ``python -m tests.log.test_model --steps 100000``."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from service.errors import WrongExpectedSeq
from service.log import NewEvent, Recorded, chain_next, chain_seed
from service.log import sqlite as sqlite_module
from service.log.follow import follow, follow_all
from service.log.memory import MemoryLog
from service.log.sqlite import SqliteLog
from service.log.tail import Tail

STREAMS = st.sampled_from(["run/a", "run/b", "signal/a", "workflow/ä"])
TYPES = st.sampled_from(["start", "log", "end"])
EVENTS = st.lists(st.builds(NewEvent, TYPES, st.binary(max_size=60)), min_size=1, max_size=6)
CURSORS = st.integers(-1, 40)
LIMITS = st.integers(1, 9)


class Follower:
    """A reader that keeps its place between two steps of the machine."""

    def __init__(self, pages: Any) -> None:
        self.pages = pages
        self.found: list[bytes] = []

    async def catch_up(self, count: int) -> None:
        while len(self.found) < count:
            page = await asyncio.wait_for(anext(self.pages), 5)
            self.found += [event.data for event in page]


class LogMachine(RuleBasedStateMachine):
    """Holds a log and what it must contain."""

    @initialize()
    def start(self) -> None:
        self.runner = asyncio.Runner()
        self.streams: dict[str, list[bytes]] = {}
        self.everything: list[tuple[str, int, NewEvent]] = []
        self.followers: list[tuple[Follower, Any]] = []
        self.open()

    def open(self) -> None:
        self.log: Any = MemoryLog()

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.stop_followers()
            self.runner.run(self.log.close())
            self.runner.close()

    def stop_followers(self) -> None:
        for follower, _ in self.followers:
            self.runner.run(follower.pages.aclose())
        self.followers.clear()

    @rule(stream=STREAMS, events=EVENTS)
    def append(self, stream: str, events: list[NewEvent]) -> None:
        stored = self.streams.setdefault(stream, [])
        answer = self.runner.run(self.log.append(stream, events, expected_seq=len(stored) - 1))
        for event in events:
            self.everything.append((stream, len(stored), event))
            stored.append(event.data)
        chain = chain_seed(stream)
        for data in stored:
            chain = chain_next(chain, data)
        assert (answer.seq, answer.chain) == (len(stored) - 1, chain)

    @rule(stream=STREAMS, events=EVENTS, expected=CURSORS)
    def append_with_a_wrong_seq(self, stream: str, events: list[NewEvent], expected: int) -> None:
        actual = len(self.streams.get(stream, ())) - 1
        if expected != actual:
            with pytest.raises(WrongExpectedSeq) as refused:
                self.runner.run(self.log.append(stream, events, expected_seq=expected))
            assert refused.value.actual == actual

    @rule(stream=STREAMS, after=CURSORS, limit=LIMITS)
    def read(self, stream: str, after: int, limit: int) -> None:
        page = self.runner.run(self.log.read(stream, after=after, limit=limit))
        expected = self.streams.get(stream, [])[after + 1 :][:limit]
        assert [event.data for event in page] == expected[: len(page)]
        assert page or not expected, "only an empty page is the end"
        assert [event.seq for event in page] == list(range(after + 1, after + 1 + len(page)))

    @rule(back=CURSORS, limit=LIMITS, types=st.none() | st.sets(TYPES))
    def read_all(self, back: int, limit: int, types: set[str] | None) -> None:
        everything: list[Recorded] = []
        while page := self.runner.run(
            self.log.read_all(after=everything[-1].position if everything else 0, limit=50)
        ):
            everything += page
        stored = [(event.stream, event.seq, NewEvent(event.type, event.data)) for event in everything]
        assert stored == self.everything
        rest = everything[max(len(everything) - back, 0) :] if back > 0 else []
        after = rest[0].position - 1 if rest else 10**9
        page = self.runner.run(self.log.read_all(after=after, limit=limit, types=types))
        expected = [event for event in rest if types is None or event.type in types][:limit]
        assert list(page) == expected[: len(page)]
        assert page or not expected, "only an empty page is the end"

    @rule(stream=STREAMS)
    def heads(self, stream: str) -> None:
        assert self.runner.run(self.log.wait(stream, after=-2)) == len(self.streams.get(stream, ())) - 1
        last = self.runner.run(self.log.wait(None, after=-1))
        assert (last == 0) == (not self.everything)

    @rule(stream=STREAMS, after=CURSORS, page_events=LIMITS)
    def follow(self, stream: str, after: int, page_events: int) -> None:
        pages = follow(self.log, stream, after=after, page_events=page_events)
        self.followers.append((Follower(pages), lambda: self.streams.get(stream, [])[after + 1 :]))

    @rule(types=st.none() | st.sets(TYPES), page_events=LIMITS)
    def follow_all(self, types: set[str] | None, page_events: int) -> None:
        pages = follow_all(self.log, after=0, types=types, page_events=page_events)
        expected = lambda: [e.data for _, _, e in self.everything if types is None or e.type in types]
        self.followers.append((Follower(pages), expected))

    @invariant()
    def followers_have_what_is_stored(self) -> None:
        for follower, expected in getattr(self, "followers", ()):
            self.runner.run(follower.catch_up(len(expected())))
            assert follower.found == expected()


class SqliteMachine(LogMachine):
    tail_bytes = 800  # two or three events: every machine reads from both the tail and the disk

    def open(self) -> None:
        shm = Path("/dev/shm")  # what is on trial is the logic; test_faults.py and the kernel see to the disk
        self.directory = tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None)
        self.reopen_file()

    def reopen_file(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite_module, "Tail", lambda *values: Tail(*values, bytes_max=self.tail_bytes))
            self.log = SqliteLog.open(Path(self.directory.name) / "tailrace.db")

    @rule()
    def close_and_open(self) -> None:
        self.stop_followers()
        self.runner.run(self.log.close())
        self.reopen_file()

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "directory"):
            self.directory.cleanup()


MACHINES = (LogMachine, SqliteMachine)
STEPS_OF_ONE = 50
EXAMPLES = 40


def run_machine(machine: type[LogMachine], examples: int, *, seeded: int | None = None) -> None:
    """Run a machine so often, with a seed of its own or the one that never changes."""
    run_state_machine_as_test(
        machine if seeded is None else seed(seeded)(machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS_OF_ONE,
            deadline=None,
            derandomize=seeded is None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("machine", MACHINES)
def test_any_calls_do_as_a_dict_of_lists_does(
    machine: type[LogMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.log.store.UNPLACED_MAX", 7)  # so that pages begin and end on both sides
    run_machine(machine, EXAMPLES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="of each machine")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    examples = -(-given.steps // STEPS_OF_ONE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.log.store.UNPLACED_MAX", 7)
        for machine in MACHINES:
            run_machine(machine, examples, seeded=given.seed)  # raises at the first fault
    print(f"steps={examples * STEPS_OF_ONE} machines={len(MACHINES)} faults=0")
    return 0


if __name__ == "__main__":
    sys.exit(main())
