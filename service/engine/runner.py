"""One run from where its events left it to its seal: decide, append, act, sleep.

Facts are written before they are acted on; a write that finds itself fenced ends the runner silently.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial

import structlog
from msgspec import Struct

from service.domain.conditions import Effort
from service.domain.decide import (
    Ended,
    advance,
    end_early,
    expression_root,
    finish,
    log_line,
    next_wake_ms,
    places_wanted,
    recover,
    seal,
)
from service.domain.events import Error, Payload, StepStart, format_time
from service.domain.run import CANCELLED, TOO_MANY_EVENTS, Ending, Run, evolve, evolve_lines
from service.domain.trace import child_of
from service.engine.attempt import perform
from service.engine.inbox import AttemptEnded, CancelWished, Inbox, Lines
from service.engine.meter import Meter, measure
from service.engine.pace import Pace
from service.engine.places import Places, User
from service.engine.secrets import Masking
from service.errors import LogUnavailable, WrongExpectedSeq
from service.log import NewEvent
from service.repository import Repository, run_frames
from service.steps import Step

MESSAGES_PER_BATCH_MAX = 250  # small, so that another run's one event never waits behind a long commit
APPEND_RETRY_MAX_S = 2.0

diagnostics = structlog.get_logger("tailrace.engine")


class Surroundings(Struct, frozen=True):
    """What every run of this service shares."""

    repository: Repository
    steps: Mapping[str, Step]
    places: Places
    env: Mapping[str, str]
    secrets: Mapping[str, str]
    parallel_steps_per_run_max: int
    events_per_run_max: int
    events_per_s_per_run_max: int
    meter: Meter | None


class Fenced(Exception):  # a signal between two functions, not an error to report
    """Somebody else has written this run's stream: it is theirs."""


class Runner:
    """Carries one run of ``user``. What happens to the run comes through ``inbox`` alone."""

    def __init__(self, run: Run, around: Surroundings, user: User) -> None:
        self.run = run
        self._user = user
        self.inbox = Inbox()
        self._around = around
        names = {name for step in run.definition.steps.values() for name in step.config.secrets}
        self._masking = Masking(around.secrets, names)
        self._attempts: dict[str, asyncio.Task[Ended]] = {}
        self._places_held = 0
        self._pace = Pace(around.events_per_s_per_run_max)
        self._draining = False
        self._stopping = False
        # The run's clock: the wall's time when it was loaded, never before its last event, then monotonic.
        self._clock_base_ms = max(time.time() * 1000, run.last_ms) - time.monotonic() * 1000
        self._now_ms = self._clock_ms()  # one moment for everything that one batch records
        timeout_ms, age_ms = run.definition.timeout_ms, run.last_ms - run.started_ms
        self._deadline_ms = None if timeout_ms is None else self._now_ms + timeout_ms - age_ms
        # At the limit there must be room for every step's end, its variables and the seal.
        self._room_events = MESSAGES_PER_BATCH_MAX + 2
        self._room_events += sum(3 + 2 * len(step.output) for step in run.definition.steps.values())

    def drain(self) -> None:
        """Start nothing more: ``carry`` returns once no attempt is running, save those that only wait."""
        self._draining = True
        self.inbox.wake()

    async def carry(self) -> None:
        """Take the run up where its events end; return when it is sealed, drained or somebody else's.

        When cancelled, attempts are stopped and stay open in the log, as if the process had died.
        """
        try:
            async with asyncio.TaskGroup() as group:
                await self._loop(group)
        except* Fenced:
            diagnostics.warning("run is written by somebody else", run_id=self.run.id)
        finally:
            self._around.places.forget(self._user, self.inbox.wake)
            self._around.places.give_back(self._user, self._places_held)

    async def _loop(self, group: asyncio.TaskGroup) -> None:
        events = self._applied(recover(self.run, now_ms=self._now_ms))
        while True:
            events += self._take_messages()
            events += self._progress()
            await self._append(events)
            if self.run.ending is None and (delay_s := self._pace.delay_s(len(events), time.monotonic())):
                await asyncio.sleep(delay_s)
            self._act(group)  # also when drained meanwhile: what is recorded as started has to start
            if self.run.sealed or self._is_drained():
                for attempt in self._attempts.values():
                    attempt.cancel()
                return
            await self.inbox.wait(self._sleep_s())
            self._now_ms = self._clock_ms()
            events = []

    def _is_drained(self) -> bool:
        if not self._draining or self.inbox:
            return False
        if self.run.ending is not None:
            return not self._attempts
        # What only waits goes on after the next start as if nothing had been.
        specs = (self.run.steps[step_id].spec for step_id in self._attempts)
        return not any(spec.holds_slot or not spec.repeatable for spec in specs)

    # Decide: nothing here waits

    def _take_messages(self) -> list[Payload]:
        events: list[Payload] = []
        inbox, run, now_ms = self.inbox, self.run, self._now_ms
        while inbox and len(events) < MESSAGES_PER_BATCH_MAX:
            match inbox.take(MESSAGES_PER_BATCH_MAX - len(events)):
                case Lines() as said:
                    if run.ending is None or run.ending.error.code != TOO_MANY_EVENTS:
                        events += [log_line(said.step_id, said.level, text, now_ms) for text in said.texts]
                        evolve_lines(run, len(said.texts), at_ms=now_ms)
                case AttemptEnded() as end:
                    self._forget_attempt(end.step_id)
                    events += self._applied(finish(run, end.step_id, end.ended, now_ms=now_ms))
                case CancelWished() as wish:
                    self._heed(wish)
        return events

    def _progress(self) -> list[Payload]:
        """Start, skip, end or seal whatever can be, until nothing changes any more."""
        events: list[Payload] = []
        self._notice_limits()
        effort = Effort()
        while True:
            if self.run.ending is not None:
                decided = end_early(self.run, self.run.ending, now_ms=self._now_ms)
            else:
                decided = [] if self._draining else self._advance(effort)
            if not decided:
                if effort.left <= 0:
                    self.inbox.wake()  # the other conditions have their turn once others have had theirs
                return events + self._applied(seal(self.run, now_ms=self._now_ms))
            events += self._applied(decided)

    def _advance(self, effort: Effort) -> list[Payload]:
        run, around = self.run, self._around
        if not run.ready and not run.waiting:
            return []
        wanted = min(
            places_wanted(run, now_ms=self._now_ms), around.parallel_steps_per_run_max - self._places_held
        )
        places = around.places.take(self._user, wanted, self.inbox.wake) if wanted > 0 else 0
        events = advance(run, now_ms=self._now_ms, places=places, env=around.env, effort=effort)
        begun = (event.step_id for event in events if isinstance(event, StepStart))
        used = sum(run.steps[step_id].spec.holds_slot for step_id in begun)
        self._places_held += used
        around.places.give_back(self._user, places - used)
        return events

    def _notice_limits(self) -> None:
        run = self.run
        if run.ending is not None:
            return
        if self._deadline_ms is not None and self._now_ms >= self._deadline_ms:
            message = f"The run was not done within {run.definition.timeout_ms} ms."
            run.ending = Ending("failed", Error("run_timeout", message))
        elif run.last_seq + self._room_events > self._around.events_per_run_max:
            message = f"The run has reached its limit of {self._around.events_per_run_max} events."
            run.ending = Ending("failed", Error(TOO_MANY_EVENTS, message))

    def _heed(self, wish: CancelWished) -> None:
        """Let the run end as cancelled, unless it is already ending for another reason."""
        ending = self.run.ending
        if ending is None or (ending.error.code == CANCELLED and ending.signal_seq is None):
            error = Error(CANCELLED, f"Cancelled by {wish.by}.")
            self.run.ending = Ending("cancelled", error, wish.by, wish.reason, wish.signal_seq)

    def _applied(self, events: Sequence[Payload]) -> list[Payload]:
        for event in events:
            evolve(self.run, event, at_ms=self._now_ms)
            if self._around.meter is not None:
                measure(self._around.meter, self.run, event)
        return list(events)

    # Append

    async def _append(self, events: Sequence[Payload]) -> None:
        after = self.run.last_seq - len(events)
        for frame in run_frames(self.run.id, events, after=after, timestamp=format_time(self._now_ms)):
            await self._append_frame(frame, after)
            after += len(frame)

    async def _append_frame(self, frame: list[NewEvent], after: int) -> None:
        """Append until it is known to be stored; the same frame with the same expectation, however often."""
        log, stream = self._around.repository.log, f"run/{self.run.id}"
        delay_s, unknown = 0.05, False
        while True:
            try:
                await log.append(stream, frame, expected_seq=after)
            except WrongExpectedSeq:
                if unknown and await self._around.repository.holds(stream, frame, after=after):
                    return
                raise Fenced from None
            except LogUnavailable as error:
                unknown = unknown or error.stored is None
                diagnostics.debug("append failed, trying again", run_id=self.run.id, reason=error.reason)
            else:
                return
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, APPEND_RETRY_MAX_S)

    # Act

    def _act(self, group: asyncio.TaskGroup) -> None:
        if self.run.ending is not None:
            if not self._stopping:  # once: a second cancel would interrupt a step's own cleaning up
                self._stopping = True
                for attempt in self._attempts.values():
                    attempt.cancel()
            return
        for step_id in self.run.attempting:
            if step_id not in self._attempts:
                self._attempts[step_id] = self._begin(group, step_id)

    def _begin(self, group: asyncio.TaskGroup, step_id: str) -> asyncio.Task[Ended]:
        run, state = self.run, self.run.steps[step_id]
        assert state.started_ms is not None, "recorded before it is acted on"
        root = expression_root(run, self._around.env)
        if state.spec.config.secrets:
            root["secrets"] = self._around.secrets
        attempt = group.create_task(
            perform(
                self._around.steps[state.spec.type], state.spec, root, self._masking,
                number=state.attempt, run_id=run.id, elapsed_ms=self._now_ms - state.started_ms,
                inbox=self.inbox, trace=_trace(run, step_id),
            )
        )  # fmt: skip
        if self._around.meter is not None:
            self._around.meter.attempt_began(state.spec.type)
        attempt.add_done_callback(partial(self._on_attempt_done, step_id))
        return attempt

    def _on_attempt_done(self, step_id: str, attempt: asyncio.Task[Ended]) -> None:
        if self._around.meter is not None:
            self._around.meter.attempt_ended(self.run.steps[step_id].spec.type)
        ended = Ended("cancelled", {}, {}) if attempt.cancelled() else attempt.result()
        self.inbox.post(AttemptEnded(step_id, ended))

    def _forget_attempt(self, step_id: str) -> None:
        del self._attempts[step_id]
        if self.run.steps[step_id].spec.holds_slot:
            self._places_held -= 1
            self._around.places.give_back(self._user, 1)

    # Time

    def _clock_ms(self) -> int:
        return int(self._clock_base_ms + time.monotonic() * 1000)

    def _sleep_s(self) -> float | None:
        """Return how long nothing can be due, None when only a message can change anything."""
        if self.run.ending is not None:
            return None
        moments = (next_wake_ms(self.run), self._deadline_ms)
        # What is due already waits for a place, and a place wakes us.
        due = [ms for ms in moments if ms is not None and ms > self._now_ms]
        return max(0, min(due) - self._clock_ms() + 1) / 1000 if due else None


def _trace(run: Run, step_id: str) -> dict[str, str]:
    """Return the headers of a step's open attempt: a child of what its run was started by."""
    if run.traceparent is None:
        return {}
    own = {"traceparent": child_of(run.traceparent, run.id, step_id, run.steps[step_id].attempt)}
    return own if run.tracestate is None else own | {"tracestate": run.tracestate}
