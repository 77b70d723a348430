"""Which step waits for which, and what it may look at."""

from tests.domain.definitions import faults_of, parse, step


def graph(**dependencies):
    """Return a definition from ``a="b c"``: a depends on b and c."""
    return {"steps": {step_id: step(dependsOn=before.split()) for step_id, before in dependencies.items()}}


def reading(raw, step_id, text):
    raw["steps"][step_id]["config"] = {"do": text}
    return raw


def cycle(pointer, path):
    return (pointer, f"the steps depend on each other in a cycle: {path}")


def test_a_cycle_is_told_with_its_path_from_its_first_step():
    assert faults_of(graph(a="b", b="a")) == [cycle("/steps/a/dependsOn/0", "a → b → a")]
    assert faults_of(graph(x="", c="x b", a="c", b="a")) == [cycle("/steps/c/dependsOn/1", "c → b → a → c")]


def test_cycles_apart_are_all_told():
    assert sorted(faults_of(graph(a="b", b="a", c="d", d="c e", e="a"))) == [
        cycle("/steps/a/dependsOn/0", "a → b → a"),
        cycle("/steps/c/dependsOn/0", "c → d → c"),
    ]


def test_many_cycles_and_long_ones_are_told_in_part():
    pairs = {f"s{n}": f"s{n ^ 1}" for n in range(60)}
    assert len(faults_of(graph(**pairs))) == 10
    ((_, message),) = faults_of(graph(**{f"s{n}": f"s{(n + 1) % 900}" for n in range(900)}))
    assert message.endswith(" → s49 → … → s0")


def test_a_chain_of_a_thousand_steps():
    raw = graph(s0="", **{f"s{n}": f"s{n - 1}" for n in range(1, 1000)})
    assert faults_of(reading(raw, "s999", "{{steps.s0.output}}")) == []
    assert parse(raw).dependents["s998"] == ("s999",)


def test_entries_that_are_wrong():
    assert faults_of(graph(alpha="", b="alpha alpha b alhpa")) == [
        ("/steps/b/dependsOn/1", "'alpha' is there already"),
        ("/steps/b/dependsOn/2", "a step cannot depend on itself"),
        ("/steps/b/dependsOn/3", "there is no step 'alhpa'; did you mean 'alpha'?"),
    ]


def test_a_step_that_need_not_be_over_cannot_be_looked_at():
    late = ("/steps/b/config/do", "column 3: step 'c' need not be over by then; add it to dependsOn")
    assert faults_of(reading(graph(a="", b="a", c="a"), "b", "x {{steps.c.output}}")) == [late]
    assert faults_of(reading(graph(a="", b="a", c="b"), "b", "x {{steps.c.output}}")) == [late]
    assert faults_of(reading(graph(a="", b="c", c="a"), "b", "x {{steps.c.output}}{{steps.a.output}}")) == []


def test_a_condition_is_held_to_the_same():
    raw = graph(a="", b="")
    raw["steps"]["b"]["when"] = "steps.a.output.ok && steps.a.status"
    assert faults_of(raw) == [
        ("/steps/b/when", "steps.a.output.ok: step 'a' need not be over by then; add it to dependsOn"),
        ("/steps/b/when", "steps.a.status: step 'a' need not be over by then; add it to dependsOn"),
    ]
    raw["steps"]["b"]["dependsOn"] = ["a"]
    assert faults_of(raw) == [("/steps/b/when", "steps.a.status: a step has only an output: steps.a.output")]


def test_the_order_is_checked_beside_other_faults_but_not_where_they_hide_it():
    raw = graph(a="", b="", c="gone", d="c", x="y", y="x", z="y")
    for reader in "bcdz":
        reading(raw, reader, "{{steps.a.output}}")
    assert sorted(faults_of(raw)) == [
        ("/steps/b/config/do", "column 1: step 'a' need not be over by then; add it to dependsOn"),
        ("/steps/c/dependsOn/0", "there is no step 'gone'"),
        cycle("/steps/x/dependsOn/0", "x → y → x"),
    ]


def test_a_second_step_of_the_same_id_has_its_own_faults_told():
    raw = {"steps": [step(id="a"), step(id="a", dependsOn=["zz"], when="steps.q.output")]}
    assert faults_of(raw) == [
        ("/steps/1/id", "another step has the id 'a'"),
        ("/steps/1/dependsOn/0", "there is no step 'zz'"),
        ("/steps/1/when", "steps.q.output: there is no step 'q'"),
    ]
