"""Projections at work on a log, and what their tables hold."""

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from pathlib import Path

from service.log import Log
from service.projection import Projections

TABLES = ("runs", "steps", "variables", "workflows", "checkpoint")


@asynccontextmanager
async def projecting(path: Path, log: Log):
    """Give projections that follow the log meanwhile."""
    projections = Projections.open(path, log)
    follower = asyncio.create_task(projections.run())
    try:
        yield projections
    finally:
        follower.cancel()
        await asyncio.wait([follower])
        await projections.close()
    assert follower.cancelled(), follower.exception()


def tables(path: Path) -> dict[str, list[tuple]]:
    """Return every row of the views file."""
    db = sqlite3.connect(path)
    try:
        return {table: sorted(db.execute(f"select * from {table}"), key=repr) for table in TABLES}
    finally:
        db.close()
