"""Cancel, crash, drain, fencing and a failing store: every accepted run ends, whatever happens."""

import asyncio
import random

import pytest

from service.domain.events import CancelRequested, StepLog, encode_run_event, encode_value
from service.domain.run import begin, evolve, replay
from service.engine.supervisor import WISHES_PAGE_EVENTS
from service.errors import LogUnavailable
from service.log import NewEvent
from service.log.memory import MemoryLog
from service.steps import Outcome
from tests.engine.house import House, Scripted, ends, house, shape, step, succeed

DIAMOND = [step("a", gives={"x": 1}, output={"v": "x"}), step("b", after=["a"]), step("c", after=["a"]), step("d", after=["b", "c"])]  # fmt: skip


async def test_cancel_ends_running_steps_and_all_others_as_cancelled():
    h = house()
    async with h.engine():
        await h.start([step("a", do="hang"), step("b", after=["a"])])
        await h.until("r1", lambda events: "step_start a" in shape(events))
        await h.repository.request_cancel("r1", by="ann", reason="enough")
        await h.repository.request_cancel("r1", by="bob")
        events = await h.ended()
    assert ends(events) == {"a": "cancelled", "b": "cancelled"}
    seal = events[-1].payload
    assert (seal.status, seal.by, seal.reason, seal.signal_seq) == ("cancelled", "ann", "enough", 0)


async def test_a_queued_run_can_be_cancelled_while_all_places_are_taken():
    h = house(runs_max=1)
    async with h.engine():
        await h.start([step("a", do="hang")], "r1")
        await h.until("r1", lambda events: "step_start a" in shape(events))
        await h.start([step("a")], "r2")
        await h.repository.request_cancel("r2", by="ann")
        events = await h.ended("r2")
        assert shape(events) == ["run_start", "step_complete a", "run_complete"]
        assert events[1].payload.attempt == 0


@pytest.mark.parametrize("cancels_before", [0, WISHES_PAGE_EVENTS])
async def test_a_cancel_from_before_a_restart_ends_a_queued_run_without_its_turn(cancels_before):
    h = house(runs_max=1)
    for run_id in ("r1", "r2", "r3"):
        await h.start([step("a", do="hang")], run_id)
    for n in range(cancels_before):
        await h.repository.append_signal(f"over{n}", CancelRequested("ann"))
    await h.repository.request_cancel("r3", by="ann")
    position = await h.log.wait(None, after=-1)
    async with h.engine(["r1", "r2", "r3"], position) as supervisor:
        assert (await h.ended("r3"))[-1].payload.status == "cancelled"
        await h.until("r1", lambda events: "step_start a" in shape(events))
        assert (supervisor.alive, supervisor.waiting) == (1, 1)
        assert shape(await h.events("r2")) == ["run_start"]


async def test_runs_beyond_the_bound_wait_their_turn():
    h = house(runs_max=2)
    async with h.engine() as supervisor:
        for n in range(9):
            await h.start([step("a")], f"r{n}")
        for n in range(9):
            assert (await h.ended(f"r{n}"))[-1].payload.status == "success"
            assert supervisor.alive <= 2


def crash_points(events: int) -> list[int]:
    return list(range(1, events))


async def record_of(steps, **more) -> list:
    h = house(**more)
    async with h.engine():
        await h.ended(await h.start(steps))
    return list(await h.log.read("run/r1", after=-1, limit=1_000))


@pytest.mark.parametrize("config", [{}, {"repeatable": True}], ids=["once", "repeatable"])
async def test_taken_up_after_any_event_the_run_ends_and_every_step_ends_once(config):
    steps = [{**s, "config": {**s["config"], **config}} for s in DIAMOND]
    record = await record_of(steps)
    for cut in crash_points(len(record)):
        h = house()
        await h.log.append("run/r1", [NewEvent(r.type, r.data) for r in record[:cut]], expected_seq=-1)
        async with h.engine():
            events = await h.ended()
        found = ends(events)
        assert set(found) == set("abcd")
        open_attempts = [
            e for e in events[:cut] if e.payload.type == "step_start" and not _ended_by(events, e, cut)
        ]
        status = events[-1].payload.status
        assert status == ("failed" if open_attempts and not config else "success")
        if open_attempts and config:
            interrupted = [
                e.payload
                for e in events
                if isinstance(e.payload, StepLog) and e.payload.outcome == "interrupted"
            ]
            assert len(interrupted) == len(open_attempts)
        await _folds_the_same(h, events)


def _ended_by(events, start, cut) -> bool:
    return any(
        e.payload.type == "step_complete" and e.payload.step_id == start.payload.step_id for e in events[:cut]
    )


async def _folds_the_same(h, events) -> None:
    header = events[0]
    run = begin(
        "r1",
        header.payload,
        await h.repository.definitions.recorded(encode_value(header.payload.definition)),
        at_ms=0,
    )
    replay(run, events[1:])
    assert run.sealed
    assert run.last_seq == events[-1].seq
    assert run.open_steps == 0
    assert not run.attempting
    assert not run.waiting


async def test_a_step_that_takes_the_service_down_is_not_tried_for_ever():
    log = MemoryLog()
    await house(log).start([step("a", do="hang", config={"repeatable": True})])
    for _ in range(20):
        h = house(log)
        starts = len([w for w in shape(await h.events()) if w == "step_start a"])
        async with h.engine():
            events = await h.until(
                "r1",
                lambda found, n=starts: (
                    shape(found).count("step_start a") > n or "run_complete" in shape(found)
                ),
            )
        if shape(events)[-1] == "run_complete":
            break
    assert shape(events)[-1] == "run_complete"
    assert shape(events).count("step_start a") == 6
    assert events[-1].payload.error.code == "interrupted"


async def test_a_step_that_only_waits_may_be_interrupted_any_number_of_times():
    log = MemoryLog()
    kind = Scripted(holds_slot=False)
    await House(log, kind).start([step("a", do="hang", config={"repeatable": True})])
    for number in range(1, 12):
        h = House(log, kind)
        async with h.engine():
            await h.until("r1", lambda found, n=number: shape(found).count("step_start a") == n)
    assert "run_complete" not in shape(await h.events())
    kind.scripts["hang"] = succeed
    async with h.engine():
        assert ends(await h.ended()) == {"a": "success"}


async def test_on_interrupt_retry_and_retries_left_repeat_an_interrupted_attempt():
    for more in ({"onInterrupt": "retry"}, {"retry": {"maxAttempts": 2, "interval": 1}}):
        record = await record_of([step("a", **more)])
        h = house()
        await h.log.append("run/r1", [NewEvent(r.type, r.data) for r in record[:2]], expected_seq=-1)
        async with h.engine():
            events = await h.ended()
        assert ends(events) == {"a": "success"}
        assert h.kind.attempts[0].number == 2
        assert h.kind.attempts[0].idempotency_key == "r1/a"


async def test_drain_waits_for_running_attempts_and_leaves_the_rest_for_the_next_start():
    gate = asyncio.Event()

    async def held(attempt):
        await gate.wait()
        return Outcome("success", {})

    h = house(scripts={"held": held})
    async with h.engine() as supervisor:
        await h.start([step("a", do="held"), step("b", after=["a"])])
        await h.until("r1", lambda events: "step_start a" in shape(events))
        asyncio.get_running_loop().call_later(0.05, gate.set)
        await supervisor.drain(10)
        await h.start([step("a")], "r2")
        events = await h.events()
        assert shape(events)[-1] == "step_complete a"
    assert shape(await h.events("r2")) == ["run_start"]
    async with h.engine():
        assert ends(await h.ended()) == {"a": "success", "b": "success"}
        assert (await h.ended("r2"))[-1].payload.status == "success"


async def test_drain_does_not_wait_for_what_only_waits():
    gate = asyncio.Event()

    async def held(attempt):
        await gate.wait()
        return Outcome("success", {})

    waiting = Scripted(holds_slot=False, held=held)
    h = house(scripts={"held": held})
    h.steps["waiting"] = waiting
    only = step("w", do="hang", config={"repeatable": True}) | {"type": "waiting"}
    to_end = step("e", do="held") | {"type": "waiting"}  # an interruption would fail it
    async with h.engine() as supervisor:
        await h.start([only], "only")
        await h.start([only, step("a", do="held")], "beside")
        await h.start([only, to_end], "not repeatable")
        for run_id in ("only", "beside", "not repeatable"):
            await h.until(run_id, lambda events: "step_start w" in shape(events))
        drained = asyncio.create_task(supervisor.drain(10))
        async with asyncio.timeout(5):
            while supervisor.alive > 2:
                await asyncio.sleep(0)
        assert not drained.done()
        gate.set()
        async with asyncio.timeout(5):
            await drained
        assert ends(await h.events("only")) == {}
        assert ends(await h.events("beside")) == {"a": "success"}
        assert ends(await h.events("not repeatable")) == {"e": "success"}
    waiting.scripts["hang"] = succeed
    async with h.engine():
        for run_id in ("only", "beside", "not repeatable"):
            assert (await h.ended(run_id))[-1].payload.status == "success"


class Slow(MemoryLog):
    """Takes its time, until ``go``, to store that a step has started."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def append(self, stream, events, *, expected_seq):
        if any(event.type == "step_start" for event in events):
            self.asked.set()
            await self.go.wait()
        return await super().append(stream, events, expected_seq=expected_seq)


async def test_a_step_that_is_being_recorded_as_started_when_drain_begins_is_run():
    log = Slow()
    h = house(log)
    async with h.engine() as supervisor:
        await h.start([step("a"), step("b", after=["a"])])
        await log.asked.wait()
        drained = asyncio.create_task(supervisor.drain(10))
        await asyncio.sleep(0)
        log.go.set()
        await drained
        assert ends(await h.events()) == {"a": "success"}
    async with h.engine():
        assert ends(await h.ended()) == {"a": "success", "b": "success"}


async def test_a_fenced_runner_stops_silently_and_completely():
    h = house()
    async with h.engine() as supervisor:
        await h.start([step("a", do="hang")])
        events = await h.until("r1", lambda found: "step_log a" in shape(found))
        foreign = StepLog("a", "info", "somebody else", events[-1].timestamp)
        data = encode_run_event("r1", foreign, seq=3, timestamp=events[-1].timestamp)
        await h.log.append("run/r1", [NewEvent("step_log", data)], expected_seq=2)
        await h.repository.request_cancel("r1", by="ann")  # makes the runner write, and so find itself fenced
        async with asyncio.timeout(5):
            while supervisor.alive:
                await asyncio.sleep(0)
        assert len(await h.events()) == 4


class Shaky(MemoryLog):
    """Fails appends at seeded random moments, with and without having stored them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)

    async def append(self, stream, events, *, expected_seq):
        fate = self.random.random() if stream.startswith("run/") and expected_seq >= 0 else 1
        if fate < 0.2:
            raise LogUnavailable("disk full", stored=False)
        appended = await super().append(stream, events, expected_seq=expected_seq)
        if fate < 0.4:
            raise LogUnavailable("answer lost", stored=None)
        return appended


@pytest.mark.parametrize("seed", range(5))
async def test_a_failing_store_delays_a_run_and_loses_or_doubles_nothing(seed, monkeypatch):
    monkeypatch.setattr("service.engine.runner.APPEND_RETRY_MAX_S", 0.001)
    h = house(Shaky(seed))
    async with h.engine():
        events = await h.ended(await h.start(DIAMOND))
    assert ends(events) == dict.fromkeys("abcd", "success")
    assert shape(events).count("variable_change a") == 1
    assert [e.seq for e in events] == list(range(len(events)))


@pytest.mark.parametrize("seed", range(40))
async def test_random_graphs_with_random_fates_and_crashes_end_every_step_once(seed):
    rng = random.Random(seed)
    names = [f"s{n}" for n in range(rng.randint(1, 12))]
    steps = [
        step(
            name, after=sorted(rng.sample(names[:n], rng.randint(0, min(n, 3)))),
            do=rng.choice(["succeed", "succeed", "fail"]), onError=rng.choice(["abort", "continue", "continue"]),
            when=rng.choice(["true", "true", "false"]), config={"repeatable": rng.random() < 0.5},
            retry={"maxAttempts": rng.randint(1, 3), "interval": 1},
        )
        for n, name in enumerate(names)
    ]  # fmt: skip
    log = MemoryLog()
    await house(log).start(steps)
    for _ in range(rng.randint(0, 4)):
        h = house(log)
        async with h.engine():
            for _ in range(rng.randint(0, 30)):
                await asyncio.sleep(0)
    h = house(log, parallel_steps_per_run_max=rng.randint(1, 4))
    async with h.engine():
        events = await h.ended()
    assert set(ends(events)) == set(names)
    _dependencies_come_first(steps, events)
    await _folds_the_same(h, events)


def _dependencies_come_first(steps, events) -> None:
    done: set[str] = set()
    needs = {s["id"]: set(s["dependsOn"]) for s in steps}
    for event in events:
        if event.payload.type == "step_start":
            assert needs[event.payload.step_id] <= done
        elif event.payload.type == "step_complete":
            done.add(event.payload.step_id)


def test_a_step_cannot_end_twice():
    from service.domain.definition import parse_definition
    from service.domain.events import RunStart, StepComplete
    from tests.engine.house import Scripted

    definition = parse_definition({"steps": [step("a")]}, kinds={"scripted": Scripted()}, steps_max=10)
    run = begin("r", RunStart("w", 1, {}, {}, {}, ""), definition, at_ms=0)
    evolve(run, StepComplete("a", "a", "success", 0, 1), at_ms=0)
    with pytest.raises(AssertionError):
        evolve(run, StepComplete("a", "a", "success", 0, 1), at_ms=0)


async def test_a_damaged_event_of_one_run_does_not_stop_the_others(tmp_path):
    import sqlite3

    from service.log.sqlite import SqliteLog

    path = tmp_path / "tailrace.db"
    log = SqliteLog.open(path)
    await house(log).start([step("a")], "r1")
    await house(log).start([step("a")], "r2")
    await log.close()
    with sqlite3.connect(path) as db:
        db.execute(
            "UPDATE events SET data = cast(replace(cast(data AS text), 'hash', 'hush') AS blob) WHERE position = 1"
        )
    db.close()
    log = SqliteLog.open(path)
    h = house(log)
    async with h.engine() as supervisor:
        assert (await h.ended("r2"))[-1].payload.status == "success"
        assert supervisor.left_out == 1
    await log.close()
