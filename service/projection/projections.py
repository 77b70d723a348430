"""Keeps the views up with the log, and lets every read wait until they hold what its caller can know of."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import structlog

from service.domain.events import decode_event, parse_time
from service.errors import Damaged, LogUnavailable, NotCaughtUp
from service.log import Log
from service.log.follow import follow_all
from service.projection import reads, workflows
from service.projection.reads import RunCursor, RunDetail, RunFilter, RunSummary, StepRow, VariableRow
from service.projection.unfinished import Unfinished, unfinished_in
from service.projection.views import DAMAGE, EVENT_TYPES, Checkpoint, Views, checkpoint_of
from service.projection.workflows import WorkflowSummary

CAUGHT_UP_TIMEOUT_S = 2.0
PAGE_EVENTS = 1_000  # of one transaction of the views
UNFINISHED_WITHIN_S = 1.0  # else views are being made, which takes ten times as long as to go without
RETRY_S = 0.5  # after a failure of either file that may pass, such as a full disk

P = ParamSpec("P")
T = TypeVar("T")
diagnostics = structlog.get_logger("tailrace.projection")


class Lag(NamedTuple):
    """How far the views are behind the log: events of any kind, and the age of the oldest that they lack."""

    events: int = 0
    seconds: float = 0.0


class Making(NamedTuple):
    """The views are being made, or brought up to where the log was at the start: ``done`` of ``events``."""

    done: int
    events: int


class Projections:
    """The views of a log. ``run`` keeps them up; each read first waits for the log's head of its moment.

    A read raises NotCaughtUp when that takes longer than ``CAUGHT_UP_TIMEOUT_S``, and LogUnavailable.
    """

    def __init__(self, log: Log, views: Views) -> None:
        self._log = log
        self._views = views
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="views")
        self._applied = (
            -1
        )  # the views hold every event up to this position; -1: not yet compared with the log
        self._advanced = asyncio.Event()  # set, and replaced, whenever _applied grows
        self._waiting_for: str | None = None
        self._may_apply = asyncio.Event()
        self._may_apply.set()
        self._following: asyncio.Timeout | None = None
        self._goal = 0  # where the log ended when following began; before that the views are in the making
        self.rebuilds = 0  # how often they were made again since the start

    @classmethod
    def open(cls, path: Path, log: Log) -> "Projections":
        """Return the projections kept in ``path``; a file that is damaged or of another version starts empty.

        Raises sqlite3.Error or OSError when no file can be had there.
        """
        return cls(log, Views.open(path))

    async def close(self) -> None:
        """Release the file. ``run`` must have ended."""
        await self._in_thread(self._views.close)
        self._writer.shutdown(wait=False)

    # Keeping up

    async def run(self) -> None:
        """Follow the log until cancelled: waits while a file fails, and makes damaged views again."""
        while True:
            try:
                async with asyncio.timeout(None) as self._following:
                    await self._follow()
            except TimeoutError:  # a read's doing, see _select
                await self._begin_again("a read met damage")
            except (LogUnavailable, sqlite3.OperationalError) as error:
                await self._wait("views wait, trying again", error)
                # What can be made again must not keep the space that events need.
                if _is_full(error) and not await self._in_thread(self._views.give_space):
                    await self._begin_again("the disk is full")
            except DAMAGE as error:
                await self._begin_again(str(error))

    async def _follow(self) -> None:
        checkpoint = self._views.checkpoint()
        if not await self._is_in_log(checkpoint):
            await self._begin_again("the log does not hold what they were made from")
            checkpoint = Checkpoint()
        position = checkpoint.position
        self._goal = await self._log.wait(None, after=-1)
        while True:
            self._advance(position)
            try:
                async for page in follow_all(
                    self._log, after=position, types=EVENT_TYPES, page_events=PAGE_EVENTS
                ):
                    await self._may_apply.wait()
                    await self._in_thread(self._views.apply, page)
                    self._waiting_for = None
                    position = page[-1].position
                    self._advance(position)
            except Damaged as error:
                diagnostics.error("event left out of the views", stream=error.stream, seq=error.seq)
                assert error.position is not None  # noqa: PT017  not a test: read_all always gives it
                position = error.position  # one run's damage stays that run's

    async def _is_in_log(self, checkpoint: Checkpoint) -> bool:
        if checkpoint.position == 0:
            return True
        try:
            page = await self._log.read_all(after=checkpoint.position - 1, limit=1)
        except Damaged as error:
            return (error.stream, error.seq) == (checkpoint.stream, checkpoint.seq)
        return bool(page) and Checkpoint.at(page[0]) == checkpoint

    async def _begin_again(self, reason: str) -> None:
        diagnostics.warning("views are made again from the log", reason=reason)
        self._applied = -1
        self.rebuilds += 1
        while True:
            try:
                self._views = await self._in_thread(self._views.replaced)
            except (sqlite3.Error, OSError) as error:
                await self._wait("no views, trying again", error)
            else:
                return

    async def _wait(self, said: str, error: Exception) -> None:
        if str(error) != self._waiting_for:
            diagnostics.warning(said, reason=str(error))
        self._waiting_for = str(error)
        await asyncio.sleep(RETRY_S)

    def _advance(self, position: int) -> None:
        if position > self._applied:
            self._applied = position
            self._advanced.set()
            self._advanced = asyncio.Event()

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.wrap_future(self._writer.submit(call, *args, **kwargs))

    # What they say of themselves

    @property
    def making(self) -> Making | None:
        """How far they are, until they have come to where the log ended when they began to follow."""
        return Making(max(self._applied, 0), self._goal) if self._applied < self._goal else None

    async def lag(self) -> Lag:
        """Return how far they are behind now. Raises LogUnavailable."""
        head = await self._log.wait(None, after=-1)
        applied = max(self._applied, 0)
        try:
            pending = await self._log.read_all(after=applied, limit=1, types=EVENT_TYPES)
        except Damaged:
            return Lag(head - applied)
        if not pending or pending[0].position > head:
            return Lag()
        at_ms = parse_time(decode_event(pending[0].data).timestamp)
        return Lag(head - applied, max(0.0, time.time() - at_ms / 1000))

    async def run_counts(self) -> dict[str, int]:
        """Return how many runs there are of each status. Raises sqlite3.Error.

        Looks at every run, so in a thread, through a connection of its own.
        """
        return await asyncio.to_thread(reads.count_runs, self._views.path)

    # Reading

    async def caught_up(self, timeout_s: float | None = CAUGHT_UP_TIMEOUT_S) -> None:
        """Return once every event that the log held at the time of the call is in the views.

        Raises NotCaughtUp after ``timeout_s`` (None: never).
        """
        head = await self._log.wait(None, after=-1)
        if self._applied >= head:
            return
        try:
            async with asyncio.timeout(timeout_s):
                while self._applied < head:
                    await self._approach(head)
        except TimeoutError:
            raise NotCaughtUp from None

    async def _approach(self, head: int) -> None:
        """Wait for the follower's next step; or, where only other events lie before ``head``, step there."""
        advanced, applied = self._advanced, self._applied
        if applied >= 0:
            try:
                pending = await self._log.read_all(after=applied, limit=1, types=EVENT_TYPES)
            except Damaged:
                pending = None
            if pending is not None and (not pending or pending[0].position > head):
                if self._applied >= 0:  # else the views have begun again meanwhile
                    self._advance(head)
                return
        await advanced.wait()

    async def unfinished(self) -> Unfinished:
        """Return the runs that go on. Waits as long as it takes: nothing can begin before it is known."""
        while True:
            try:
                await self.caught_up(UNFINISHED_WITHIN_S)
                return self._select(_unfinished)
            except LogUnavailable:  # run() says why
                await asyncio.sleep(RETRY_S)
            except NotCaughtUp:
                self._may_apply.clear()  # both at once would take four times as long, and runs wait for this
                try:
                    with suppress(LogUnavailable):
                        return await unfinished_in(self._log)
                finally:
                    self._may_apply.set()

    async def run_detail(self, run_id: str) -> RunDetail | None:
        """Return a run with its values, None if there is none. ``last_seq`` is that of its newest event."""
        # Taken first: if the row then says that the run is live, this cannot be its seal.
        last_seq = await self._log.wait(f"run/{run_id}", after=-2)
        await self.caught_up()
        detail = self._select(reads.select_run, run_id)
        if detail is not None and detail.last_seq is None:
            detail.last_seq = last_seq
        return detail

    async def runs(
        self, where: RunFilter, *, before: RunCursor | None, limit: int
    ) -> tuple[list[RunSummary], RunCursor | None]:
        """Return up to ``limit`` runs, newest start first, and the next page's cursor (None: no more)."""
        await self.caught_up()
        runs, cursor = self._select(reads.select_runs, where, before=before, limit=limit)
        for run in runs:
            if run.last_seq is None:
                run.last_seq = await self._log.wait(f"run/{run.run_id}", after=-2)
        return runs, cursor

    async def steps(self, run_id: str) -> list[StepRow] | None:
        """Return the run's steps in the definition's order, None for an unknown run."""
        await self.caught_up()
        return self._select(reads.select_steps, run_id)

    async def variables(self, run_id: str) -> list[VariableRow] | None:
        """Return the run's variables by name, None for an unknown run."""
        await self.caught_up()
        return self._select(reads.select_variables, run_id)

    def workflow_of(self, run_id: str) -> str | None:
        """Return the id of the workflow that a run is of, None for an unknown run. Does not wait."""
        return self._select(reads.select_workflow_of, run_id)

    async def workflows(self, *, after: str, limit: int) -> list[WorkflowSummary]:
        """Return up to ``limit`` definitions by id, from above the id ``after``."""
        await self.caught_up()
        return self._select(workflows.select_workflows, after=after, limit=limit)

    async def workflow_count(self) -> int:
        """Return how many definitions there are."""
        await self.caught_up()
        return self._select(workflows.count_workflows)

    def _select(
        self, select: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Read in one moment of the views, on the loop: a thread would wait for the GIL at every row."""
        try:
            with self._views.reading() as db:
                return select(db, *args, **kwargs)
        except DAMAGE as error:
            if not isinstance(error, sqlite3.OperationalError) and self._applied >= 0 and self._following:
                self._following.reschedule(0)  # makes run() begin again
            raise NotCaughtUp(f"The views cannot be read: {error}.") from error


def _is_full(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _unfinished(db: sqlite3.Connection) -> Unfinished:
    return Unfinished(reads.select_unfinished(db), checkpoint_of(db).position)
