"""Whether one more run may begin: how many are unfinished, in all and of one user, and how fast they come.

And whether a user's definitions may be checked: by the time that this has taken lately.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import structlog

from service.access import ANONYMOUS, Grant
from service.domain.events import RunComplete
from service.errors import Damaged, LogUnavailable, Throttled
from service.log import Log
from service.log.follow import follow_all
from service.ops.limits import Rate

RETRY_AFTER_S = 5
RETRY_S = 1.0

_diagnostics = structlog.get_logger("tailrace.api")


class Admission:
    """Counts runs from their start until their seal is in the log. A bound of 0 is none.

    A caller without a name is bounded by what holds for all.
    """

    def __init__(
        self,
        log: Log,
        *,
        unfinished_max: int = 0,
        unfinished_per_user_max: int = 0,
        executes_per_minute: int = 0,
        checks_s_per_minute: int = 0,
    ) -> None:
        self.unfinished_max = unfinished_max
        self.unfinished_per_user_max = unfinished_per_user_max
        self._rate = Rate(executes_per_minute)
        self._checks = Rate(checks_s_per_minute)
        self._log = log
        self._owners: dict[str, str] = {}
        self._of_user: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._owners)

    async def run(self, unfinished: Mapping[str, str | None], position: int) -> None:
        """Count ``unfinished``, as of ``position``, and follow the log to learn which runs end; for ever."""
        for run_id, owner in unfinished.items():
            self._add(run_id, owner or ANONYMOUS)
        while True:
            try:
                async for page in follow_all(self._log, after=position, types=[RunComplete.type]):
                    for recorded in page:
                        self._remove(recorded.stream.partition("/")[2])
                    position = page[-1].position
            except LogUnavailable:
                await asyncio.sleep(RETRY_S)
            except Damaged as error:
                _diagnostics.error("event left out", stream=error.stream, seq=error.seq)
                self._remove(error.stream.partition("/")[2])
                position = error.position or position

    @contextmanager
    def one(self, run_id: str, grant: Grant) -> Iterator[Callable[[], None]]:
        """Count a run that is about to be recorded; not if that fails, or what this yields is called.

        Raises Throttled.
        """
        if run_id in self._owners:  # a request that is repeated before its first answer
            yield lambda: None
            return
        self._check(grant)
        self._add(run_id, grant.name)
        try:
            yield partial(self._remove, run_id)
        except BaseException:
            self._remove(run_id)
            raise

    def may_check(self, grant: Grant) -> None:
        """Raise Throttled while the caller's definitions have taken more than their share of the time."""
        if grant.name != ANONYMOUS and (wait_s := self._checks.wait_s(grant.name)):
            said = (
                f"{grant.name!r} has had {self._checks.per_minute} s of checking definitions within a minute."
            )
            raise Throttled(said, retry_after_s=wait_s)

    def checked(self, grant: Grant, seconds: float) -> None:
        """Count what the check of a definition has taken."""
        if grant.name != ANONYMOUS:
            self._checks.charge(grant.name, seconds)

    def _check(self, grant: Grant) -> None:
        if self.unfinished_max and len(self._owners) >= self.unfinished_max:
            said = f"{self.unfinished_max} runs are queued or at work already."
            raise Throttled(said, retry_after_s=RETRY_AFTER_S)
        if grant.name == ANONYMOUS:
            return
        if self.unfinished_per_user_max and self._of_user[grant.name] >= self.unfinished_per_user_max:
            said = f"{grant.name!r} has {self.unfinished_per_user_max} runs queued or at work already."
            raise Throttled(said, retry_after_s=RETRY_AFTER_S)
        if wait_s := self._rate.take(grant.name):
            said = f"{grant.name!r} has started {self._rate.per_minute} runs within a minute."
            raise Throttled(said, retry_after_s=wait_s)

    def _add(self, run_id: str, owner: str) -> None:
        if run_id not in self._owners:
            self._owners[run_id] = owner
            self._of_user[owner] += 1

    def _remove(self, run_id: str) -> None:
        owner = self._owners.pop(run_id, None)
        if owner is not None:
            self._of_user[owner] -= 1
            if not self._of_user[owner]:
                del self._of_user[owner]
