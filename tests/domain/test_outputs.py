"""Which outputs a run keeps in memory: those that a step may still look up."""

import pytest

from service.domain.events import RunStart, StepComplete, StepStart
from service.domain.run import Run, begin, evolve
from tests.domain.definitions import parse, step


def begun(steps) -> Run:
    raw = {"steps": steps}
    return begin("r", RunStart("w", 1, raw, {}, {"by": "x"}, "h"), parse(raw), at_ms=0)


def end(run: Run, step_id: str, status="success") -> set[str]:
    """End a step and return the steps whose outputs are there."""
    evolve(run, StepStart(step_id, step_id, 1), at_ms=1)
    evolve(run, StepComplete(step_id, step_id, status, 1, 1, output={"of": step_id}), at_ms=2)
    assert all(
        kept == {"output": {"of": id_}, "status": run.steps[id_].phase} for id_, kept in run.outputs.items()
    )
    return set(run.outputs)


def test_an_output_is_kept_until_its_last_reader_is_over():
    run = begun({
        "a": step(),
        "b": step(dependsOn=["a"], config={"do": "{{steps.a.output.x}}", "with": ["{{steps.a.output}}"]}),
        "c": step(dependsOn=["a", "b"], when="steps.a.output.x && steps.b.output.x"),
        "d": step(dependsOn=["c"]),
    })  # fmt: skip
    assert [end(run, step_id) for step_id in "abcd"] == [{"a"}, {"a", "b"}, set(), set()]


def test_a_reader_that_is_skipped_or_fails_is_over_too():
    for status in ("skipped", "failed", "cancelled"):
        run = begun(
            {
                "a": step(),
                "b": step(dependsOn=["a"], config={"do": "{{steps.a.output.x}}"}, onError="continue"),
            }
        )
        assert end(run, "a") == {"a"}
        assert end(run, "b", status) == set()


@pytest.mark.parametrize("when", ["@ | steps.a.output", "*.a.output.of"])
def test_who_may_look_anywhere_keeps_all(when):
    run = begun(
        {"a": step(), "b": step(), "c": step(dependsOn=["a", "b"], when=when), "d": step(dependsOn=["c"])}
    )
    assert [end(run, step_id) for step_id in "ab"] == [{"a"}, {"a", "b"}]
    definition = run.definition.steps["c"]
    assert definition.when.holds({"steps": run.outputs})
    assert [end(run, step_id) for step_id in "cd"] == [set(), set()]


def test_what_no_name_leads_to_any_more_is_kept_for_who_looks_anywhere():
    run = begun({
        "a": step(),
        "b": step(dependsOn=["a"], config={"do": "{{steps.a.output.x}}"}),
        "c": step(dependsOn=["b"], when="*.a"),
        "d": step(dependsOn=["c"], config={"do": "{{steps.b.output.x}}"}),
    })  # fmt: skip
    assert [end(run, step_id) for step_id in "abcd"] == [{"a"}, {"a", "b"}, {"b"}, set()]


def test_a_chain_of_a_thousand_keeps_one():
    steps = {"s0": step()} | {
        f"s{n}": step(dependsOn=[f"s{n - 1}"], config={"do": f"{{{{steps.s{n - 1}.output.of}}}}"})
        for n in range(1, 1000)
    }
    run = begun(steps)
    assert all(len(end(run, step_id)) <= 1 for step_id in steps)
    assert end(begun({"a": step()}), "a") == set()
