"""``tailrace keys``: what it prints, and that a running service heeds it at once."""

import json

import pytest

from tests.server import Server


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path)


def test_the_key_is_printed_once_on_stdout_alone(server):
    ended = server.tailrace("keys", "create", "ann", "--rights", "run, read", "--expires", "90d")
    assert ended.stdout.count("\n") == 1
    key_id = ended.stdout.split("_")[1]
    assert ended.stderr.startswith(f"key {key_id} for ann: read, run, until 2")
    listed = server.tailrace("keys", "list").stdout
    assert ended.stdout.strip() not in listed
    assert listed.splitlines()[0].split() == ["ID", "NAME", "RIGHTS", "STATE", "CREATED", "EXPIRES"]
    assert listed.splitlines()[1].split()[:4] == [key_id, "ann", "read,run", "valid"]
    server.tailrace("keys", "revoke", key_id)
    (shown,) = json.loads(server.tailrace("keys", "list", "-o", "json").stdout)
    assert (shown["state"], shown["rights"]) == ("revoked", ["read", "run"])
    assert "hash" not in shown


def test_a_key_beside_no_log_says_so(server):
    assert "There is no log" in server.tailrace("keys", "create", "ann").stderr
    server.db.touch()
    assert "There is no log" not in server.tailrace("keys", "create", "ann").stderr


def test_without_keys_the_list_is_empty(server):
    assert json.loads(server.tailrace("keys", "list", "-o", "json").stdout) == []
    assert not server.db.with_name("tailrace.db.keys").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "a b"), "name: must be 1 to 128"),
        (("create", "ann", "--rights", "fly"), "rights: unknown: fly"),
        (("create", "ann", "--expires", "0d"), "is not a time"),
        (("create", "ann", "--expires", "3 months"), "is not a time"),
        (("revoke", "nobody"), "nobody: is not the id of a key"),
        (("revoke",), "Missing argument"),
    ],
)
def test_a_bad_command_says_what_is_wrong_and_exits_2(server, words, said):
    ended = server.tailrace("keys", *words, status=2)
    assert said in ended.stderr
    assert ended.stdout == ""


def test_a_directory_that_is_not_there_exits_1(server):
    ended = server.tailrace("keys", "create", "ann", "--db", "nowhere/t.db", status=1)
    assert "No such file or directory" in ended.stderr


def test_the_first_key_closes_the_door_of_a_running_service_and_the_last_does_not_open_it(server):
    with server:
        assert server.get("/api/v2/workflows").status == 200
        key = server.create_key("ann", "read")
        assert server.get("/api/v2/workflows").status == 401
        assert server.get("/api/v2/workflows", authorization=f"Bearer {key}").status == 200
        server.tailrace("keys", "revoke", key.split("_")[1])
        assert server.get("/api/v2/workflows", authorization=f"Bearer {key}").status == 401
        server.db.with_name("tailrace.db.keys").unlink()
        assert server.get("/api/v2/workflows").status == 401, "a file that vanishes lets nobody in"


def test_a_file_of_keys_that_others_can_read_stops_the_start_and_a_running_service_lets_nobody_in(server):
    key = server.create_key("ann", "read")
    path = server.db.with_name("tailrace.db.keys")
    with server:
        path.chmod(0o644)
        path.write_text(path.read_text() + " ")
        assert server.get("/api/v2/workflows", authorization=f"Bearer {key}").status == 401
        path.chmod(0o600)
        path.write_text(path.read_text() + " ")
        assert server.get("/api/v2/workflows", authorization=f"Bearer {key}").status == 200
    path.chmod(0o644)
    ended = server.tailrace("serve", "--port", "0", status=1)
    assert "chmod 600" in ended.stderr
    assert "keys cannot be read" in server.diagnostics.read_text()
