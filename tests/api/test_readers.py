"""Looking again whether readers may still read is cheap, however many there are."""

import asyncio
from contextlib import ExitStack

from service.access import Authentication, Grant
from service.access.keys import KeyFile
from service.api import readers as module
from service.api.readers import Readers


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


def test_a_grant_can_be_remembered():
    held = Grant("ann", frozenset({"read"}), key_id="k")
    assert {held: 1}[Grant("ann", frozenset({"read"}), key_id="k")] == 1
