"""Each page of the log's file is destroyed in turn, and the log served without the files that follow from it.

So all of it is read again: lists and segments are made from what is left, and one page's damage stays that page's.
Only pages that a log cannot be opened without may prevent that it opens.
``python -m tests.faults.pages --ways 8``.
"""

import asyncio
import random
import sqlite3
import sys
import tempfile
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import structlog

from service.errors import LogUnavailable
from tests.faults.damage import DB, look_at, serving, written
from tests.faults.program import program
from tests.faults.readings import Reader

PAGE = 4096
# A log is not opened unless its schema and release are known, and where it and each of its streams end.
OPENS_BY = {
    "sqlite_schema", "_sqlite_migrations", "idx__sqlite_migrations_migration_set_name", "placed", "streams", "types",
    "typed",  # for as long as it is completed when a log is opened: what it holds follows from the events
}  # fmt: skip
OPENS_BY_LAST = {"events"}  # only the last page, and those that lead to it
WAYS = ("emptied", "head", "pointers", "rows", "noise", "one byte", "torn", "another")


def destroyed(page: bytes, way: str, chance: random.Random, other: bytes) -> bytes:
    """Return what has become of ``page``; ``other`` is one of the same file."""
    match way:
        case "emptied":
            return bytes(PAGE)
        case "head":
            return chance.randbytes(12) + page[12:]
        case "pointers":
            return page[:8] + chance.randbytes(52) + page[60:]
        case "rows":
            return page[:-400] + chance.randbytes(400)
        case "noise":
            return chance.randbytes(PAGE)
        case "one byte":
            at = chance.randrange(200)  # where pages say how they are laid out
            return page[:at] + bytes([page[at] ^ chance.randint(1, 255)]) + page[at + 1 :]
        case "torn":
            at = chance.randrange(1, 8) * 512
            return page[:at] + other[at:]
    return other


def owners(path: Path) -> dict[int, str]:
    """Return of which table or index each page is."""
    db = sqlite3.connect(path)
    try:
        return dict(db.execute("SELECT pageno, name FROM dbstat").fetchall())
    finally:
        db.close()


def needed(path: Path) -> set[int]:
    """Return the pages that the log may refuse to be opened without."""
    db = sqlite3.connect(path)
    try:
        pages = db.execute("SELECT pageno, name, path, pagetype FROM dbstat").fetchall()
    finally:
        db.close()
    last = {name: place for _, name, place, kind in sorted(pages, key=lambda page: page[2]) if kind == "leaf"}
    return {
        number
        for number, name, place, _ in pages
        if name in OPENS_BY or (name in OPENS_BY_LAST and last[name].startswith(place))
    }


async def served(
    directory: Path, runs: dict[str, list[bytes]], chance: random.Random, *, may_refuse: bool
) -> tuple[list[str], Counter[str]]:
    """Serve the log in ``directory`` and read all; return what was wrong, and how the readings ended.

    ``may_refuse``: the log need not open.
    """
    try:
        async with serving(directory) as (service, port):
            reader = Reader(port, runs)
            await reader.read(chance)
            await look_at(service, reader.faults)
            return reader.faults, reader.told
    except LogUnavailable as error:
        return [] if may_refuse else [f"does not open: {error}"], Counter({"does not open": 1})


def pages(
    scratch: Path, *, seed: int, ways: int, chosen: Callable[[int, str], bool] = lambda _number, _owner: True
) -> tuple[list[str], dict[str, int]]:
    """Destroy each page that is ``chosen`` in ``ways`` ways; return the faults found, and figures."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    (origin := scratch / "origin").mkdir()
    files, runs = written(origin)
    content, cases = files[DB], 0
    faults: list[str] = []
    told: Counter[str] = Counter()
    may_refuse = needed(origin / DB)
    with asyncio.Runner() as runner:
        for number, owner in sorted(owners(origin / DB).items()):
            if not chosen(number, owner):
                continue
            start = (number - 1) * PAGE
            for way in random.Random(f"{seed} {number}").sample(WAYS, ways):
                chance = random.Random(f"{seed} {number} {way}")
                other = chance.randrange(len(content) // PAGE) * PAGE
                page = destroyed(content[start : start + PAGE], way, chance, content[other : other + PAGE])
                with tempfile.TemporaryDirectory(dir=scratch) as directory:
                    (Path(directory) / DB).write_bytes(content[:start] + page + content[start + PAGE :])
                    try:
                        found, ended = runner.run(
                            served(Path(directory), runs, chance, may_refuse=number in may_refuse)
                        )
                    except Exception as error:  # whatever comes out of the service, nothing should
                        found, ended = [repr(error)], Counter()
                cases += 1
                faults += [f"page {number} of {owner}, {way}: {fault}" for fault in found]
                told += ended
    structlog.reset_defaults()
    return faults, {"cases": cases, "faults": len(faults), **told}


def main() -> int:
    return program(
        ArgumentParser(description=__doc__), "ways", len(WAYS),
        lambda scratch, given: pages(scratch, seed=given.seed, ways=given.ways),
        in_memory=True,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
