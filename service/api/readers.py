"""Who reads a stream at present, and how each of them is told to stop."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from time import monotonic
from typing import Protocol, Self

from service.access import EVERYTHING, Authentication, Grant
from service.api.patience import SHUTTING_DOWN
from service.api.problems import Problem, problem_of
from service.errors import Forbidden, Unauthenticated
from service.wire.slim import Flag

RECHECK_INTERVAL_S = 15.0  # a right that was taken away ends a stream within this time
CHECKS_PER_TURN = 100


class Placed(Protocol):
    """Something that knows behind which seq its client goes on."""

    after: int


class Parked(Protocol):
    """Something to which others push what is new."""

    def release(self) -> None:
        """Send it back to read by itself."""
        ...


class Stop(Flag):
    """Is set once a stream has to end before its run; ``problem`` says why."""

    __slots__ = ("problem",)

    def __init__(self) -> None:
        super().__init__()
        self.problem: Problem | None = None

    def because(self, problem: Problem) -> None:
        """End it for this reason, unless it has one already."""
        if self.problem is None:
            self.problem = problem
            self.set()

    async def reason(self) -> Problem:
        """Return why, once it is set."""
        await self.wait()
        assert self.problem is not None
        return self.problem


class Reader:
    """One stream, which is counted while the context lasts. ``parked``: while others push to it what is new.

    ``in_run``: it is known to be allowed to read the run, whose streams it counts among from then on.
    ``place`` is None until it has begun; ``head`` was its run's last seq then.
    """

    __slots__ = (
        "_all", "address", "began_at", "form", "grant", "head", "id", "in_run", "parked", "place",
        "run_id", "stop",
    )  # fmt: skip

    def __init__(self, all_: "Readers", id_: int, run_id: str, form: str, grant: Grant, address: str) -> None:
        self._all = all_
        self.id = id_
        self.run_id = run_id
        self.form = form
        self.grant = grant
        self.address = address
        self.began_at = monotonic()
        self.in_run = False
        self.place: Placed | None = None
        self.head = -1
        self.stop = Stop()
        self.parked: Parked | None = None

    def __enter__(self) -> Self:
        self._all.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._all.remove(self)

    @property
    def phase(self) -> str:
        """Return ``opening`` until it has begun, ``replaying`` what was there then, ``live`` from then on."""
        if self.place is None:
            return "opening"
        return "replaying" if self.behind else "live"

    @property
    def behind(self) -> int:
        """Return how many seqs it has still to come to where its run was when it began."""
        return 0 if self.place is None else max(0, self.head - self.place.after)

    def begins(self, place: Placed, head: int) -> None:
        """Note where the stream stands from now on, of a run that has come to ``head``."""
        self.place, self.head = place, head

    def end(self, problem: Problem) -> None:
        """Make the stream end because of ``problem``."""
        self.stop.because(problem)
        if self.parked is not None:
            self.parked.release()


class Readers:
    """All streams that are open, and how many each run, user and address has."""

    def __init__(self) -> None:
        self.of_run: Counter[str] = Counter()
        self.of_user: Counter[str] = Counter()
        self.of_address: Counter[str] = Counter()
        self._ids = count(1)
        self._open: dict[int, Reader] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Reader]:
        return iter(list(self._open.values()))

    def one(self, run_id: str, form: str, *, grant: Grant = EVERYTHING, address: str = "") -> Reader:
        """Return a reader, not counted yet."""
        return Reader(self, next(self._ids), run_id, form, grant, address)

    def add(self, reader: Reader) -> None:
        """Count ``reader``."""
        self._open[reader.id] = reader
        for counter, key in self._counted(reader):
            counter[key] += 1

    def enter_run(self, reader: Reader) -> None:
        """Count ``reader`` among the streams of its run."""
        reader.in_run = True
        self.of_run[reader.run_id] += 1

    def remove(self, reader: Reader) -> None:
        """Count ``reader`` no longer."""
        del self._open[reader.id]
        for counter, key in self._counted(reader):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def _counted(self, reader: Reader) -> Iterable[tuple[Counter[str], str]]:
        if reader.in_run:
            yield self.of_run, reader.run_id
        yield self.of_user, reader.grant.name
        yield self.of_address, reader.address

    def end_all(self) -> None:
        """End every stream, because the service does."""
        for reader in self:
            reader.end(SHUTTING_DOWN)

    async def recheck(self, authentication: Authentication) -> None:
        """End the streams of those who may not read them any more, every RECHECK_INTERVAL_S, for ever."""
        while True:
            await asyncio.sleep(RECHECK_INTERVAL_S)
            refusals: dict[Grant, Problem | None] = {}  # to look at the keys costs more than all the rest
            for index, reader in enumerate(self):
                if index % CHECKS_PER_TURN == CHECKS_PER_TURN - 1:
                    await asyncio.sleep(0)
                if reader.grant not in refusals:
                    refusals[reader.grant] = _refusal(reader.grant, authentication)
                if (problem := refusals[reader.grant]) is not None:
                    reader.end(problem)


def _refusal(held: Grant, authentication: Authentication) -> Problem | None:
    try:
        authentication.still_reads(held)
    except (Unauthenticated, Forbidden) as error:
        return problem_of(error)
    return None
