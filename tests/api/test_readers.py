"""Looking again whether readers may still read is cheap, however many there are."""

import asyncio
from contextlib import ExitStack

from service.access import EVERYTHING, Authentication, Grant
from service.access.keys import KeyFile
from service.api import readers as module
from service.api.problems import Problem
from service.api.readers import Reader, Readers


class CountedKeys(KeyFile):
    """Counts how often it is looked at."""

    looks = 0

    def read(self):
        self.looks += 1
        return super().read()


async def test_a_round_looks_at_the_keys_once_for_each_grant(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RECHECK_INTERVAL_S", 0.0)
    keys = CountedKeys(tmp_path / "keys")
    grants = []
    for name in ("ann", "bob"):
        _, text = keys.create(name, ("read",), 0)
        grants.append(keys.grant(text, 0))
    readers = Readers()
    with ExitStack() as stack:
        opened = [stack.enter_context(readers.one("r", "ndjson", grant=grants[n % 2])) for n in range(1_000)]
        keys.revoke((str(grants[0].key_id),), 0)
        keys.looks = 0
        checking = asyncio.create_task(readers.recheck(Authentication(keys)))
        async with asyncio.timeout(10):
            while not opened[-2].stop.is_set():
                await asyncio.sleep(0)
        looks = keys.looks
        checking.cancel()
        assert [reader.stop.is_set() for reader in opened] == [True, False] * 500
        assert looks <= 4, "of the round that ended them, and of one that may have begun"


async def ended(readers: Readers, authentication: Authentication, reader: Reader) -> Problem:
    """Return why a stream is told to go."""
    checking = asyncio.create_task(readers.recheck(authentication))
    try:
        async with asyncio.timeout(10):
            return await reader.stop.reason()
    finally:
        checking.cancel()


async def test_streams_of_nobody_end_once_there_are_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RECHECK_INTERVAL_S", 0.0)
    keys = KeyFile(tmp_path / "keys")
    authentication, readers = Authentication(keys), Readers()
    with readers.one("r", "ndjson") as reader:
        assert authentication.still_reads(reader.grant) == EVERYTHING
        _, text = keys.create("ann", ("read",), 0)
        with readers.one("r", "ndjson", grant=authentication.bearer(text)) as stays:
            assert (await ended(readers, authentication, reader)).status == 401
            assert not stays.stop.is_set()


async def test_streams_of_a_session_end_with_it_and_those_of_another_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RECHECK_INTERVAL_S", 0.0)
    keys = KeyFile(tmp_path / "keys")
    _, text = keys.create("ann", ("read",), 0)
    authentication, readers = Authentication(keys), Readers()
    first, second = (
        authentication.session(authentication.open_session(authentication.bearer(text))[0]) for _ in range(2)
    )
    with readers.one("r", "ndjson", grant=first) as goes, readers.one("r", "ndjson", grant=second) as stays:
        await authentication.end_session(first)
        assert (await ended(readers, authentication, goes)).status == 401
        assert not stays.stop.is_set()


def test_a_grant_can_be_remembered():
    held = Grant("ann", frozenset({"read"}), key_id="k")
    assert {held: 1}[Grant("ann", frozenset({"read"}), key_id="k")] == 1
