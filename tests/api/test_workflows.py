"""Definitions through their routes: the same body again is the same workflow, another one is a conflict."""

import concurrent.futures

W = "/api/v2/workflows"


def wait(ms: int) -> dict:
    return {"steps": {"rest": {"type": "wait", "config": {"duration": ms}}}}


def test_create_read_replace_delete(server):
    body = {"workflowId": "life", "name": "Life", "description": "of one", "definition": wait(1)}
    created = server.post(W, body)
    assert (created.status, created.headers["location"]) == (201, f"{W}/life")
    workflow = created.json
    assert workflow.pop("createdAt") == workflow.pop("updatedAt")
    assert workflow == body | {"version": 1}
    assert server.get(f"{W}/life").json == created.json

    replaced = server.request("PUT", f"{W}/life", {"definition": wait(2)})
    assert (replaced.status, replaced.json["version"], replaced.json["name"]) == (200, 2, None)
    assert replaced.json["createdAt"] == created.json["createdAt"]
    assert server.get(f"{W}/life").json["definition"] == wait(2)

    assert server.request("DELETE", f"{W}/life").status == 204
    assert server.request("DELETE", f"{W}/life").status == 404
    assert server.get(f"{W}/life").status == 404
    assert server.post(f"{W}/life/execute").status == 404
    assert (server.post(W, body).status, server.get(f"{W}/life").json["version"]) == (201, 4)


def test_the_same_body_again_is_200_and_another_is_409(server):
    body = {"workflowId": "twice", "definition": wait(1)}
    first = server.post(W, body)
    again = server.post(W, {"definition": wait(1), "workflowId": "twice"})
    assert (first.status, again.status, again.json) == (201, 200, first.json)
    for other in (
        {"definition": wait(2)},
        {"definition": wait(1), "name": "x"},
        {"definition": wait(1), "description": "x"},
    ):
        answer = server.post(W, {"workflowId": "twice"} | other)
        assert (answer.status, answer.json["workflowId"]) == (409, "twice")
    assert server.request("PUT", f"{W}/twice", body).json["version"] == 1


def test_one_of_many_at_once_creates_it(server):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        same = pool.map(
            lambda _: server.post(W, {"workflowId": "race", "definition": wait(1)}).status, range(16)
        )
        assert sorted(same) == [200] * 15 + [201]
        bodies = [{"workflowId": "race2", "definition": wait(n)} for n in range(1, 17)]
        other = pool.map(lambda body: server.post(W, body).status, bodies)
        assert sorted(other) == [201] + [409] * 15


def test_a_bare_definition_gets_an_id(server):
    first, second = server.post(W, wait(1) | {"name": "Bare"}), server.post(W, wait(1) | {"name": "Bare"})
    assert (first.status, second.status) == (201, 201)
    assert first.json["workflowId"] < second.json["workflowId"]
    assert first.json["definition"] == wait(1) | {"name": "Bare"}
    assert server.get(first.headers["location"]).json == first.json


def test_put_names_the_same_workflow_or_none(server):
    server.create("named", wait(1))
    answer = server.request("PUT", f"{W}/named", {"workflowId": "other", "definition": wait(2)})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (400, "/workflowId")
    assert server.request("PUT", f"{W}/named", {"workflowId": "named", "definition": wait(2)}).status == 200


def test_validate_records_nothing(server):
    before = server.get(W).json["total"]
    assert server.post(f"{W}/validate", wait(1)).json == {"valid": True, "errors": []}
    verdict = server.post(
        f"{W}/validate", {"workflowId": "runs", "definition": {"steps": {"a": {"type": "?"}}}}
    )
    assert (verdict.status, verdict.json["valid"]) == (200, False)
    assert {fault["pointer"] for fault in verdict.json["errors"]} >= {
        "/workflowId",
        "/definition/steps/a/type",
    }
    assert server.get(W).json["total"] == before


def test_the_list_shows_what_was_just_written_page_by_page(server):
    names = [f"list-{n:02}" for n in range(7)]
    for name in names:
        server.create(name, wait(1))
    server.request("DELETE", f"{W}/list-03")
    found, cursor, pages = [], "list-", 0
    while cursor is not None:
        page = server.get(f"{W}?limit=2&cursor={cursor}").json
        assert len(page["data"]) <= 2
        found += [row["workflowId"] for row in page["data"] if row["workflowId"].startswith("list-")]
        cursor, pages = page["nextCursor"], pages + 1
    assert found == [name for name in names if name != "list-03"]
    assert pages > 3
