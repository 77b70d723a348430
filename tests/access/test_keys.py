"""The file of keys: only hashes are in it, whoever changes it is seen at once, and what is wrong lets nobody in."""

import fcntl
import json
import os
import re
import threading
from contextlib import contextmanager

import pytest

from service.access import Grant, KeyFile
from service.access import keys as module
from service.access.keys import (
    ENDED_SESSIONS_MAX,
    ENDED_SESSIONS_PER_USER_MAX,
    SESSION_LIFETIME_S,
    KeyBook,
    session_id,
)
from service.errors import InvalidInput, Unauthenticated

NOW = 1_800_000_000


@pytest.fixture
def keys(tmp_path):
    return KeyFile(tmp_path / "t.db.keys")


def test_a_key_grants_what_it_was_created_for_and_is_not_in_the_file(keys):
    key, text = keys.create("ann", ("run", "read"), NOW)
    assert re.fullmatch(r"trk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", text)
    grant = keys.grant(text, NOW)
    assert (grant.name, grant.rights, grant.key_id) == ("ann", {"read", "run"}, key.id)
    stored = keys.path.read_text()
    assert text.split("_", 2)[2] not in stored
    assert "sha256:" in stored
    assert keys.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes what is not its own")
@pytest.mark.parametrize("whose", ["the file", "the directory"])
def test_what_root_changes_stays_its_owners(keys, whose):
    if whose == "the file":
        keys.create("ann", ("read",), NOW)
    os.chown(keys.path if whose == "the file" else keys.path.parent, 65_533, 65_534)
    keys.create("bob", ("read",), NOW)
    found = keys.path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65_533, 65_534, 0o600)


def test_two_keys_of_one_name_are_the_same_person(keys):
    texts = [keys.create("ann", ("read",), NOW)[1] for _ in range(2)]
    assert {keys.grant(text, NOW).name for text in texts} == {"ann"}
    assert len({keys.grant(text, NOW).key_id for text in texts}) == 2


@pytest.mark.parametrize("change", ["other id", "last letter", "no prefix", "longer", "empty", "a NUL"])
def test_anything_but_the_very_key_grants_nothing(keys, change):
    _, text = keys.create("ann", ("read",), NOW)
    other, _ = keys.create("bob", ("admin",), NOW)
    wrong = {
        "other id": text.replace(text[4:20], other.id),
        "last letter": text[:-1] + ("A" if text[-1] != "A" else "B"),
        "no prefix": text[4:],
        "longer": text + "A",
        "empty": "",
        "a NUL": text[:-1] + "\0",
    }[change]
    with pytest.raises(Unauthenticated):
        keys.grant(wrong, NOW)


def test_a_revoked_and_an_expired_key_grant_nothing(keys):
    first, text = keys.create("ann", ("read",), NOW)
    keys.revoke((first.id,), NOW)
    _, short = keys.create("bob", ("read",), NOW, expires_at=NOW + 60)
    assert keys.grant(short, NOW + 59).name == "bob"
    for wrong, now in ((text, NOW), (short, NOW + 60)):
        with pytest.raises(Unauthenticated):
            keys.grant(wrong, now)
    (again,) = keys.revoke((first.id,), NOW + 5)
    assert again.revoked_at == NOW, "the first time counts"


def test_of_several_ids_all_are_revoked_or_none(keys):
    key, text = keys.create("ann", ("read",), NOW)
    with pytest.raises(InvalidInput, match="nobody"):
        keys.revoke((key.id, "nobody"), NOW)
    assert keys.grant(text, NOW)


@pytest.mark.parametrize(
    ("name", "rights", "expires_at", "pointer"),
    [
        ("", ("read",), None, "name"),
        ("a b", ("read",), None, "name"),
        ("anonymous", ("read",), None, "name"),
        ("x" * 129, ("read",), None, "name"),
        ("ann", (), None, "rights"),
        ("ann", ("read", "fly"), None, "rights"),
        ("ann", ("read",), NOW, "expires"),
    ],
)
def test_a_bad_key_is_refused_and_nothing_is_written(keys, name, rights, expires_at, pointer):
    with pytest.raises(InvalidInput) as caught:
        keys.create(name, rights, NOW, expires_at=expires_at)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]
    assert not keys.path.exists()


def test_a_change_by_another_process_is_seen_at_the_next_look(keys):
    key, text = keys.create("ann", ("read",), NOW)
    assert keys.grant(text, NOW)
    KeyFile(keys.path).revoke((key.id,), NOW)
    with pytest.raises(Unauthenticated):
        keys.grant(text, NOW)


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o602])
def test_a_file_that_others_may_read_or_change_is_refused(keys, mode):
    _, text = keys.create("ann", ("read",), NOW)
    keys.path.chmod(mode)
    os.utime(keys.path, (1, 1))
    with pytest.raises(InvalidInput, match="chmod 600"):
        keys.grant(text, NOW)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"\xff", b'{"version":2,"sessionSecret":"x"}', b'{"version":1,"sessionSecret":""}'],
)
def test_a_file_that_is_none_of_ours_is_refused_by_name(keys, data):
    keys.path.write_bytes(data)
    keys.path.chmod(0o600)
    with pytest.raises(InvalidInput, match=re.escape(str(keys.path))):
        keys.read()


def test_a_field_that_nobody_knows_is_refused(keys):
    keys.create("ann", ("read",), NOW)
    book = json.loads(keys.path.read_text())
    book["keys"] = {name: key | {"rigths": []} for name, key in book["keys"].items()}
    keys.path.write_text(json.dumps(book))
    with pytest.raises(InvalidInput, match="rigths"):
        keys.read()


def test_many_who_change_it_at_once_lose_nothing(keys):
    def create(number: int) -> None:
        for index in range(10):
            KeyFile(keys.path).create(f"n{number}-{index}", ("read",), NOW)

    threads = [threading.Thread(target=create, args=(number,), daemon=True) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys.read().keys) == 50
    assert list(keys.path.parent.iterdir()) == [keys.path]


def test_a_change_that_fails_leaves_the_file_as_it_was(keys, monkeypatch):
    keys.create("ann", ("read",), NOW)
    before = keys.path.read_bytes()

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        keys.create("bob", ("read",), NOW)
    assert keys.path.read_bytes() == before
    assert list(keys.path.parent.iterdir()) == [keys.path]


def test_sessions_that_ended_are_forgotten_once_they_would_be_over(keys):
    keys.ensure()
    keys.end_session("a", "ann", NOW + 10, NOW)
    keys.end_session("b", "ann", NOW + 100, NOW + 20)
    assert keys.read().ended_sessions == {"b": NOW + 100}


def of(name: str, id_: str, issued_at: int = NOW) -> Grant:
    return Grant(name, frozenset(), session_id=id_, issued_at=issued_at)


def test_who_has_logged_out_too_often_has_no_older_session_and_others_keep_theirs():
    book = KeyBook(1, "")
    ids = [session_id("ann") for _ in range(ENDED_SESSIONS_PER_USER_MAX + 1)]
    book.end(session_id("bob"), "bob", NOW + 100, NOW)
    for id_ in ids[:-1]:
        book.end(id_, "ann", NOW + 100, NOW)
    assert book.sessions_from == {}
    assert not book.has_ended(of("ann", ids[-1]))
    book.end(ids[-1], "ann", NOW + 100, NOW)
    assert len(book.ended_sessions) == 1, "bob's"
    assert all(book.has_ended(of("ann", id_)) for id_ in [*ids, session_id("ann")])
    assert not book.has_ended(of("ann", session_id("ann"), book.opens_from("ann")))
    assert not book.has_ended(of("bob", session_id("bob")))
    later = NOW + SESSION_LIFETIME_S + 1
    book.end(session_id("bob"), "bob", later + 100, later)
    assert book.sessions_from == {}, "no session is as old as that"


def test_sessions_that_too_many_have_ended_end_for_everybody_and_none_comes_back():
    book = KeyBook(1, "")
    book.ended_sessions = {f"of an older version {n}": NOW + 100 for n in range(ENDED_SESSIONS_MAX + 5)}
    book.end(session_id("ann"), "ann", NOW + 100, NOW)
    assert (book.ended_sessions, book.sessions_from) == ({}, {"": NOW + 1})
    assert book.has_ended(of("bob", "of an older version 0"))
    assert book.has_ended(Grant("bob", frozenset(), session_id="no time"))
    assert not book.has_ended(of("bob", "x", book.opens_from("bob")))


def test_a_file_that_would_be_too_large_to_read_is_not_written(keys, monkeypatch):
    keys.create("ann", ("read",), NOW)
    monkeypatch.setattr(module, "FILE_BYTES_MAX", keys.path.stat().st_size + 10)
    with pytest.raises(InvalidInput, match="would be over"):
        keys.create("bob", ("read",), NOW)
    assert len(KeyFile(keys.path).read().keys) == 1


def test_who_holds_the_directory_for_ever_stops_no_other_process_for_ever(keys, monkeypatch):
    keys.create("ann", ("read",), NOW)
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.05)
    with held(keys.path.parent), pytest.raises(TimeoutError, match="another process"):
        keys.create("bob", ("read",), NOW)
    assert keys.create("bob", ("read",), NOW)


def test_a_change_of_its_mode_alone_is_noticed(keys):
    _, text = keys.create("ann", ("read",), NOW)
    assert keys.grant(text, NOW)
    keys.path.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        keys.grant(text, NOW)
    keys.path.chmod(0o640)
    assert keys.grant(text, NOW)
    assert keys.shared
    keys.path.chmod(0o600)
    assert keys.grant(text, NOW)
    assert not keys.shared


@contextmanager
def held(directory):
    """Hold the directory as a process would that never lets go."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)
