"""Whatever is the matter with one run, what comes from outside among it: that run ends, and the others go on."""

import asyncio
import sys

import pytest

from service.domain.events import StepComplete
from service.domain.expressions import Template
from service.engine import runner
from tests.engine.house import ends, house, step
from tests.server import Server

DEEP = "print('{\"x\":' + '[' * %d + ']' * %d + '}')"


@pytest.mark.parametrize(("times", "left_out"), [(1, 0), (1_000, 1)])
async def test_one_run_that_cannot_be_recorded_fails_alone(monkeypatch, times, left_out):
    real, left = runner.run_frames, times

    def frames(run_id, payloads, **more):
        nonlocal left
        if run_id == "r1" and left and any(isinstance(payload, StepComplete) for payload in payloads):
            left -= 1
            raise RecursionError("maximum recursion depth exceeded")
        return real(run_id, payloads, **more)

    monkeypatch.setattr(runner, "run_frames", frames)
    h = house()
    async with h.engine() as supervisor:
        await h.start([step("a"), step("b", do="hang"), step("c", after=["a"])], "r1")
        await h.start([step("a")], "r2")
        assert (await h.ended("r2"))[-1].payload.status == "success"
        if not left_out:
            events = await h.ended("r1")
            assert (events[-1].payload.status, events[-1].payload.error.code) == ("failed", "internal_error")
            assert ends(events) == {"a": "cancelled", "b": "cancelled", "c": "skipped"}
        await h.start([step("a")], "r3")
        assert (await h.ended("r3"))[-1].payload.status == "success"
        assert supervisor.left_out == left_out
    async with h.engine():  # a restart: what could be mended meanwhile goes on
        left = 0
        events = await h.ended("r1")
        assert len(ends(events)) == 3


async def test_a_template_that_cannot_be_rendered_fails_its_step(monkeypatch):
    def render(template, root):
        raise RecursionError

    monkeypatch.setattr(Template, "render", render)
    h = house()
    async with h.engine():
        await h.start([step("a")])
        events = await h.ended()
    assert events[-1].payload.error.code == "internal_error"
    assert ends(events) == {"a": "failed"}


async def test_a_condition_that_takes_too_long_fails_its_step_once_and_for_all():
    h = house()
    lots = step("a", when="[v,v][]|[@,@][]|[@,@][]|[?@==`1`]", onError="continue")
    async with h.engine():
        await h.start([lots, step("b", after=["a"])], "r1", {"v": [1] * 32_000})
        events = await h.ended()
        assert ends(events) == {"a": "failed", "b": "success"}
        (failed,) = (each.payload for each in events if getattr(each.payload, "status", "") == "failed")
        assert (failed.error.code, failed.attempt, failed.duration) == ("expression_too_much", 0, 0)
        await h.start([step("0"), lots | {"onError": "abort"}, step("b")], "r2", {"v": [1] * 32_000})
        events = await h.ended("r2")
        assert (events[-1].payload.status, events[-1].payload.error.code) == ("failed", "expression_too_much")
        assert ends(events) == {"0": "skipped", "a": "failed", "b": "skipped"}


async def test_many_costly_conditions_leave_others_their_turns():
    h, turns = house(), 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    steps = [step(f"s{n}", when="v[?@ == `2`]") for n in range(30)]
    async with h.engine():
        counting = asyncio.create_task(count())
        await h.start(steps, "r1", {"v": [1] * 30_000})
        events = await h.ended()
        counting.cancel()
    assert set(ends(events).values()) == {"skipped"}
    assert turns > len(steps), "one after the other, with a turn for everybody between them"


def command(*words, **more):
    return {"type": "command", "config": {"command": words[0], "args": list(words[1:])}, **more}


@pytest.mark.parametrize("levels", [976, 977, 978, 990, 100_000])
def test_nesting_that_nothing_here_can_write_is_text(tmp_path, levels):
    deep = command(sys.executable, "-c", DEEP % (levels, levels), output={"v": "x"})
    same = command("true", dependsOn=["a", "b"], when="steps.a.output.x == steps.b.output.x")
    with Server(tmp_path) as server:
        server.create("deep", {"variables": {"v": 1}, "steps": {"a": deep, "b": deep, "c": same}})
        assert server.finished(server.execute("deep"))["status"] == "success"
        assert server.get("/ready").status == 200


def test_an_error_of_any_length_is_cut(tmp_path):
    long = command("{{v}}" * 15)
    with Server(tmp_path) as server:
        server.create("long", {"variables": {"v": "ä" * 30_000}, "steps": {"a": long}})
        run = server.finished(server.execute("long"))
        assert run["error"]["code"] == "command_not_found"
        assert 2_000 <= len(run["error"]["message"]) < 2_100
        assert server.get("/ready").status == 200
