"""Which runs are alive: finds runs and wishes by following the log, and carries runs within bounds."""

import asyncio
from collections.abc import Mapping
from traceback import format_exception

import structlog
from msgspec import MsgspecError, UnsetType

from service.domain.events import CancelRequested, Error, RunStart, decode_event, started_by
from service.domain.run import INTERNAL_ERROR, Ending
from service.engine.inbox import CancelWished
from service.engine.meter import Meter
from service.engine.places import Places, User
from service.engine.runner import Runner, Surroundings
from service.engine.waiting import Waiting
from service.errors import Damaged, InvalidInput, LogUnavailable
from service.log import Log, Recorded
from service.log.follow import follow_all, walk_all
from service.repository import Repository
from service.steps import Step

FOLLOWED = (RunStart.type, CancelRequested.type)
RETRY_S = 1.0
WISHES_PAGE_EVENTS = 200
FAULT_OF_OURS = Ending(
    "failed", Error(INTERNAL_ERROR, "The service failed at this run; its diagnostics say why.")
)

diagnostics = structlog.get_logger("tailrace.engine")


class Supervisor:
    """Carries every unfinished run. At most ``runs_max`` are alive; others wait for their turn (waiting.py).

    ``unfinished`` are the runs without a seal as of ``position`` in the log, and who started each; what comes
    after it is found by following. ``anonymous`` is the name of whoever was not asked for one.
    """

    def __init__(
        self,
        *,
        log: Log,
        repository: Repository,
        steps: Mapping[str, Step],
        unfinished: Mapping[str, str | None],
        position: int,
        anonymous: str,
        runs_max: int,
        parallel_steps_max: int,
        parallel_steps_per_run_max: int,
        events_per_run_max: int,
        events_per_s_per_run_max: int,
        env: Mapping[str, str],
        secrets: Mapping[str, str],
        meter: Meter | None = None,
    ) -> None:
        self._log = log
        self._position = position
        self._anonymous = anonymous
        self._waiting = Waiting(runs_max)
        for run_id, name in unfinished.items():
            self._waiting.add(run_id, self._user(name))
        self._alive: dict[str, Runner | None] = {}  # None while the run is being loaded
        self._left_out: set[str] = set()
        self._draining = False
        self._unread: str | None = None  # why, as it was last told
        self._none_alive = asyncio.Event()
        self._around = Surroundings(
            repository, steps, Places(parallel_steps_max), env, secrets,
            parallel_steps_per_run_max, events_per_run_max, events_per_s_per_run_max, meter,
        )  # fmt: skip

    @property
    def alive(self) -> int:
        """How many runs are being carried."""
        return len(self._alive)

    @property
    def waiting(self) -> int:
        """How many runs wait for their turn."""
        return len(self._waiting)

    @property
    def left_out(self) -> int:
        """How many unfinished runs cannot be taken up: what they have recorded cannot be read."""
        return len(self._left_out)

    @property
    def places_free(self) -> int:
        """How many more attempts may begin now."""
        return self._around.places.free

    async def run(self) -> None:
        """Follow the log and carry runs until cancelled; then attempts stop and stay open in the log."""
        async with asyncio.TaskGroup() as group:
            self._fill(group)
            group.create_task(self._end_cancelled(group, upto=self._position))
            while True:
                try:
                    await self._follow(group)
                except LogUnavailable as error:
                    await self._wait_for_log(error.reason)
                except Damaged as error:
                    self._pass_over(error)

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        async for page in follow_all(self._log, after=self._position, types=FOLLOWED):
            self._unread = None
            for recorded in page:
                self._heed(group, recorded)
            self._position = page[-1].position
            self._fill(group)

    async def _end_cancelled(self, group: asyncio.TaskGroup, *, upto: int) -> None:
        """Begin runs that wait although their cancel lies before what is followed: they are only to end."""
        while len(self._waiting):
            try:
                async for page in walk_all(
                    self._log, upto=upto, types=(CancelRequested.type,), page_events=WISHES_PAGE_EVENTS
                ):
                    for recorded in page:
                        run_id = recorded.stream.partition("/")[2]
                        if run_id in self._waiting and not self._draining:
                            self._begin(group, run_id)
            except LogUnavailable as error:
                await self._wait_for_log(error.reason)
            else:
                return

    async def _wait_for_log(self, reason: str) -> None:
        if reason != self._unread:  # once, not for each run that waits
            diagnostics.warning("log not read, trying again", reason=reason)
        self._unread = reason
        await asyncio.sleep(RETRY_S)

    def _pass_over(self, damaged: Damaged) -> None:
        """Go on behind an event that cannot be read: one run's damage stays that run's."""
        diagnostics.error("event left out", stream=damaged.stream, seq=damaged.seq)
        if damaged.stream.startswith("run/"):
            self._left_out.add(damaged.stream.removeprefix("run/"))
        assert damaged.position is not None
        self._position = damaged.position

    async def drain(self, timeout_s: float) -> None:
        """Begin nothing more, and return once no attempt is running, or after ``timeout_s``."""
        self._draining = True
        for runner in self._alive.values():
            if runner is not None:
                runner.drain()
        self._none_alive.clear()
        if not self._alive:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._none_alive.wait()
        except TimeoutError:
            diagnostics.warning("runs are left for the next start", runs=len(self._alive))

    def _heed(self, group: asyncio.TaskGroup, recorded: Recorded) -> None:
        run_id = recorded.stream.partition("/")[2]
        if recorded.type == RunStart.type:
            self._waiting.add(run_id, self._starter(recorded))
        elif runner := self._alive.get(run_id):
            wish = decode_event(recorded.data).payload
            assert isinstance(wish, CancelRequested)
            runner.inbox.post(_wished(wish, recorded.seq))
        elif run_id in self._waiting and not self._draining:
            self._begin(group, run_id)  # it is only going to end: no need to wait for its turn

    def _user(self, name: str | None) -> User:
        return None if name == self._anonymous else name

    def _starter(self, started: Recorded) -> User:
        try:
            return self._user(started_by(started.data))
        except MsgspecError:
            return None  # who takes it up says what is wrong with it

    def _fill(self, group: asyncio.TaskGroup) -> None:
        while not self._draining and (run_id := self._waiting.next()) is not None:
            self._begin(group, run_id)

    def _begin(self, group: asyncio.TaskGroup, run_id: str) -> None:
        self._waiting.begin(run_id)
        self._alive[run_id] = None
        group.create_task(self._carry(group, run_id))

    async def _carry(self, group: asyncio.TaskGroup, run_id: str) -> None:
        try:
            await self._carry_to_its_end(run_id)
        finally:
            del self._alive[run_id]
            self._waiting.end(run_id)
            if not self._alive:
                self._none_alive.set()
        self._fill(group)

    async def _carry_to_its_end(self, run_id: str) -> None:
        """Carry a run; where that fails by a fault of ours, let the run fail.

        Whatever is the matter with one run, it is not the end of the others.
        """
        for ending in (None, FAULT_OF_OURS):
            try:
                runner = await self._load(run_id)
                if runner is not None:
                    runner.run.ending = runner.run.ending or ending
                    await runner.carry()
            except (Damaged, InvalidInput) as error:
                diagnostics.error("run cannot be taken up", run_id=run_id, reason=str(error))
                break
            except Exception as error:  # noqa: BLE001
                told = "".join(format_exception(error)).strip()
                diagnostics.error("run met a fault of ours", run_id=run_id, exception=told)
            else:
                return
        self._left_out.add(run_id)

    async def _load(self, run_id: str) -> Runner | None:
        """Return the run's runner, with the wish that may wait for it; None if the run is over."""
        repository = self._around.repository
        while True:
            try:
                run = await repository.load_run(run_id)
                if run is None:
                    return None
                # From here on new wishes reach the runner; what came before is in the log.
                user = self._waiting.user(run_id)
                runner = self._alive[run_id] = Runner(run, self._around, user)
                pending = await repository.pending_cancel(run_id)
            except LogUnavailable as error:
                await self._wait_for_log(error.reason)
                continue
            self._unread = None
            if pending is not None:
                runner.inbox.post(_wished(pending[1], pending[0]))
            if self._draining:
                runner.drain()
            return runner


def _wished(wish: CancelRequested, seq: int) -> CancelWished:
    return CancelWished(wish.by, None if isinstance(wish.reason, UnsetType) else wish.reason, seq)
