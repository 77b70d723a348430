"""What a run does: order, parallel steps, outcomes, retries, limits, as its events show it."""

import asyncio

import pytest

from service.domain.events import Error, StepComplete, StepLog, VariableChange, parse_time
from service.steps import Outcome
from tests.engine.house import ends, house, shape, step


async def run(steps, *, scripts=None, bounds=None, **more):
    h = house(scripts=scripts, **(bounds or {}))
    async with h.engine():
        return await h.ended(await h.start(steps, **more))


def of(events, kind):
    return [e.payload for e in events if isinstance(e.payload, kind)]


async def test_the_order_inside_a_step_is_the_guides():
    steps = [step("a", gives={"x": 1}, output={"got": "x"}, name="First"), step("b", after=["a"])]
    events = await run(steps)
    assert shape(events) == [
        "run_start", "step_start a", "step_log a", "variable_change a", "step_complete a",
        "step_start b", "step_log b", "step_complete b", "run_complete",
    ]  # fmt: skip
    assert [e.seq for e in events] == list(range(9))
    assert events[2].payload.message == "Starting step: First"
    assert events[3].payload == VariableChange("a", "got", None, 1, "create")
    assert events[-1].payload.status == "success"
    assert events[-1].payload.last_seq == 7


async def test_a_steps_end_and_its_dependents_start_are_one_append():
    h = house()
    async with h.engine():
        await h.ended(await h.start([step("a", gives={"x": 1}, output={"v": "x"}), step("b", after=["a"])]))
    recorded = await h.log.read("run/r1", after=-1, limit=100)
    appends = "".join("|" if r.chain else "." for r in recorded)
    assert appends == "|" + ".|" + "...|" + ".|"  # header; a starts; a ends and b starts; b ends and the seal


async def test_steps_start_as_soon_as_their_own_dependencies_are_done():
    gate = asyncio.Event()

    async def held(attempt):
        await gate.wait()
        return Outcome("success", {})

    h = house(scripts={"held": held})
    async with h.engine():
        await h.start([step("slow", do="held"), step("quick"), step("next", after=["quick"])])
        events = await h.until("r1", lambda found: "step_complete next" in shape(found))
        assert "step_complete slow" not in shape(events)
        gate.set()
        assert ends(await h.ended()) == {"slow": "success", "quick": "success", "next": "success"}


@pytest.mark.parametrize(
    ("bounds", "expected"), [({"parallel_steps_per_run_max": 3}, 6), ({"parallel_steps_max": 4}, 4)]
)
async def test_parallel_attempts_are_bounded_per_run_and_globally(bounds, expected):
    gate = asyncio.Event()
    now = most = 0

    async def counted(attempt):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await gate.wait()
        now -= 1
        return Outcome("success", {})

    h = house(scripts={"counted": counted}, **bounds)
    async with h.engine():
        for run_id in ("r1", "r2"):
            await h.start([step(f"s{n}", do="counted") for n in range(20)], run_id)
        async with asyncio.timeout(5):
            while now < expected:
                await asyncio.sleep(0)
        gate.set()
        for run_id in ("r1", "r2"):
            assert set(ends(await h.ended(run_id)).values()) == {"success"}
    assert most == expected


async def test_an_aborting_failure_cancels_what_runs_and_skips_the_rest():
    async def fail_later(attempt):
        while len(h.kind.attempts) < 2:
            await asyncio.sleep(0)
        return Outcome("failed", {}, error=Error("broken", "It broke."))

    h = house(scripts={"later": fail_later})
    async with h.engine():
        await h.start(
            [step("a", do="later"), step("b", do="hang"), step("c", after=["a"]), step("d", after=["b"])]
        )
        events = await h.ended()
    assert ends(events) == {"a": "failed", "b": "cancelled", "c": "skipped", "d": "skipped"}
    seal = events[-1].payload
    assert (seal.status, seal.error.code, seal.error.step_id) == ("failed", "broken", "a")


async def test_continue_lets_dependents_run_and_the_run_succeed():
    events = await run([step("a", do="fail", onError="continue"), step("b", after=["a"])])
    assert ends(events) == {"a": "failed", "b": "success"}
    assert events[-1].payload.status == "success"


async def test_when_false_skips_without_a_start_and_dependents_run():
    steps = [step("a", when="n > 3"), step("b", after=["a"], when="{{ n == 1 }}"), step("c", after=["b"])]
    events = await run(steps, variables={"n": 1})
    assert ends(events) == {"a": "skipped", "b": "success", "c": "success"}
    assert "step_start a" not in shape(events)
    (skipped,) = [p for p in of(events, StepComplete) if p.step_id == "a"]
    assert (skipped.duration, skipped.attempt) == (0, 0)


async def test_retries_are_recorded_with_the_time_of_the_next_attempt():
    tries = 0

    async def third_time(attempt):
        nonlocal tries
        tries += 1
        assert attempt.number == tries
        status = "success" if tries == 3 else "failed"
        return Outcome(status, {}, error=None if tries == 3 else Error("broken", "No."))

    retry = {"maxAttempts": 5, "interval": 20, "backoff": 2}
    events = await run([step("a", do="third", retry=retry)], scripts={"third": third_time})
    waits = [p for p in of(events, StepLog) if p.outcome]
    waits = [p for p in waits if p.outcome == "failed"]
    assert [p.attempt for p in waits] == [1, 2]
    delays = [parse_time(p.retry_at) - parse_time(p.timestamp) for p in waits]
    assert 20 <= delays[0] <= 22
    assert 40 <= delays[1] <= 44
    starts = [e for e in events if e.payload.type == "step_start"]
    assert all(
        parse_time(s.timestamp) >= parse_time(w.retry_at) for s, w in zip(starts[1:], waits, strict=True)
    )
    (end,) = of(events, StepComplete)
    assert (end.status, end.attempt) == ("success", 3)
    assert end.duration >= sum(delays)


async def test_a_timeout_ends_the_attempt_and_says_so():
    events = await run([step("a", do="hang", timeout=30)])
    (end,) = of(events, StepComplete)
    assert (end.status, end.error.code) == ("failed", "timeout")
    assert end.duration >= 30


async def test_the_timeout_of_a_run_stops_it():
    events = await run([step("a", do="hang"), step("b", after=["a"])], timeout="50ms")
    assert ends(events) == {"a": "cancelled", "b": "skipped"}
    assert (events[-1].payload.status, events[-1].payload.error.code) == ("failed", "run_timeout")


async def test_templates_look_into_variables_outputs_and_the_environment():
    steps = [
        step("a", gives={"id": 7}, output={"user": "id"}),
        step(
            "b", after=["a"], config={"gives": {"n": "{{user}}", "t": "u{{steps.a.output.id}}{{env.HOST}}"}}
        ),
    ]
    events = await run(steps, bounds={"env": {"HOST": "h"}})
    assert of(events, StepComplete)[1].output == {"n": 7, "t": "u7h"}


async def test_a_missing_value_fails_the_step_with_its_path_and_a_missing_output_is_null_with_a_warning():
    events = await run([step("a", gives={"x": 1}, output={"y": "nope.deep"})])
    assert of(events, VariableChange) == [VariableChange("a", "y", None, None, "create")]
    assert [p.level for p in of(events, StepLog)] == ["info", "warn"]
    events = await run([step("a", config={"gives": {"v": "{{ absent.thing }}"}})])
    (end,) = of(events, StepComplete)
    assert end.error.code == "missing_value"
    assert "absent" in end.error.message


async def test_an_unchanged_variable_is_no_event():
    steps = [step("a", gives={"x": 1}, output={"v": "x"}), step("b", gives={"x": 1.0}, output={"w": "x"})]
    steps.append(step("c", gives={"x": {"b": [{"d": 2, "c": 1}], "a": 1}}, output={"o": "x"}))
    variables = {"v": 1, "w": 1, "o": {"a": 1, "b": [{"c": 1, "d": 2}]}}
    events = await run(steps, variables=variables)
    assert [(c.var_name, c.change_type) for c in of(events, VariableChange)] == [("w", "update")]


async def test_what_is_too_large_or_has_no_json_form_fails_its_step():
    async def odd(attempt):
        return Outcome("success", {"x": object()})

    async def surrogate(attempt):
        return Outcome("success", {"x": "\ud800"})

    async def said(attempt):
        return Outcome("failed", {}, error=Error("broken", "\ud800 broke."))

    events = await run(
        [step("big", gives={"x": "y" * 70_000}, onError="continue"), step("odd", do="odd", onError="continue"),
         step("sur", do="surrogate", onError="continue"),
         step("new", do="surrogate", output={"v": "x"}, onError="continue"),
         step("said", do="said", onError="continue")],
        scripts={"odd": odd, "surrogate": surrogate, "said": said},
        variables={"v": 1},
    )  # fmt: skip
    codes = {p.step_id: p.error.code for p in of(events, StepComplete)}
    assert codes == {
        "big": "output_too_large", "odd": "output_unencodable", "sur": "output_unencodable",
        "new": "output_unencodable", "said": "broken",
    }  # fmt: skip


async def test_what_is_mapped_thousands_of_times_and_what_a_run_holds_is_bounded():
    async def large(attempt):
        return Outcome("success", {"x": "y" * 65_000}, recorded={})

    many = {f"v{n}": "x" for n in range(8_000)}
    events = await run([step("a", do="large", output=many)], scripts={"large": large})
    assert [(p.error.code, p.error.message) for p in of(events, StepComplete)] == [
        ("output_too_large", "The outputs of one attempt are over 1048576 bytes together.")
    ]
    assert of(events, VariableChange) == []
    some = [
        step(f"s{n}", do="large", output={f"v{n}_{m}": "x" for m in range(16)}, onError="continue")
        for n in range(10)
    ]
    events = await run(some, scripts={"large": large})
    failed = [p.error.message for p in of(events, StepComplete) if p.status == "failed"]
    assert set(failed) == {"The run's variables would be over 8388608 bytes together."}
    assert len(of(events, VariableChange)) == 128
    assert len(failed) == 2


async def test_a_large_document_is_mapped_while_it_is_there():
    async def large(attempt):
        return Outcome("success", {"id": 5, "body": "x" * 100_000}, recorded={"note": "cut"})

    events = await run([step("a", do="large", output={"v": "id"})], scripts={"large": large})
    assert of(events, VariableChange)[0].new_value == 5
    assert of(events, StepComplete)[0].output == {"note": "cut"}


async def test_a_step_type_that_raises_fails_its_step_alone():
    async def broken(attempt):
        raise ZeroDivisionError

    events = await run([step("a", do="broken", onError="continue"), step("b")], scripts={"broken": broken})
    assert ends(events) == {"a": "failed", "b": "success"}
    assert {p.error.code for p in of(events, StepComplete) if p.error} == {"internal_error"}


async def test_lines_are_recorded_in_order_and_only_long_ones_are_cut():
    async def talk(attempt):
        await attempt.emit("info", [f"line {n}" for n in range(5_000)])
        await attempt.emit("warn", ["é" * 20_000, "\ud800 odd"])
        return Outcome("success", {})

    events = await run([step("a", do="talk")], scripts={"talk": talk})
    lines = of(events, StepLog)[1:]
    assert [p.message for p in lines[:5_000]] == [f"line {n}" for n in range(5_000)]
    assert lines[5_000].truncated is True
    assert lines[5_000].bytes == 40_000
    assert len(lines[5_000].message.encode()) == 16 * 1024
    assert lines[5_001].message == "? odd"


async def test_a_step_that_says_more_than_can_be_written_waits():
    most = 0

    async def talk(attempt):
        nonlocal most
        for n in range(100):
            await attempt.emit("info", ["x"] * 500)
            most = max(most, (n + 1) * 500 - (await h.log.wait("run/r1", after=-2)))
        return Outcome("success", {})

    h = house(scripts={"talk": talk})
    async with h.engine():
        events = await h.ended(await h.start([step("a", do="talk")]))
    assert len(of(events, StepLog)) == 50_001
    assert most < 4_000


async def test_at_the_events_limit_the_run_fails_and_still_ends_every_step():
    async def chatter(attempt):
        while True:
            await attempt.emit("info", ["x"] * 100)

    steps = [step("a", do="chatter"), step("b", after=["a"])]
    events = await run(steps, scripts={"chatter": chatter}, bounds={"events_per_run_max": 2_000})
    assert len(events) <= 2_000
    assert ends(events) == {"a": "cancelled", "b": "skipped"}
    assert (events[-1].payload.status, events[-1].payload.error.code) == ("failed", "too_many_events")


async def test_declared_secrets_never_reach_an_event():
    async def tell(attempt):
        await attempt.emit("info", [f"using {attempt.config['key']}!"])
        return Outcome("failed", {}, error=Error("x", f"refused {attempt.config['key']}"))

    async def give(attempt):
        return Outcome("success", {"k": attempt.config["key"]})

    steps = [
        step("a", do="tell", config={"key": "{{secrets.KEY}}"}, onError="continue"),
        step("b", do="give", config={"key": "{{secrets.KEY}}"}, output={"v": "k"}, onError="continue"),
    ]
    h = house(scripts={"tell": tell, "give": give}, secrets={"KEY": 'hun"ter2'})
    async with h.engine():
        events = await h.ended(await h.start(steps))
    recorded = b"".join(r.data for r in await h.log.read("run/r1", after=-1, limit=100))
    assert b"ter2" not in recorded
    assert b"{{secrets.KEY}}" in recorded
    codes = {p.step_id: p.error.code for p in of(events, StepComplete)}
    assert codes == {"a": "x", "b": "secret_in_output"}
    assert "using ***!" in [p.message for p in of(events, StepLog)]
