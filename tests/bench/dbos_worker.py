"""DBOS on its own SQLite, told by lines on stdin what to do; runs in the bench's own venv.

``chain N``: a workflow of N no-op steps. ``runs N C``: N one-step workflows, C at once. Answers seconds.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy
from dbos import DBOS
from dbos._dbos import _get_dbos_instance

DBOS(
    config={
        "name": "bench",
        "system_database_url": f"sqlite:///{sys.argv[1]}",
        "run_admin_server": False,
        "log_level": "ERROR",
    }
)


@DBOS.step()
def nothing() -> None:
    """Do nothing; its end is recorded."""


@DBOS.workflow()
def chain(steps: int) -> None:
    """Call a number of steps one after the other."""
    for _ in range(steps):
        nothing()


def measure(verb: str, *numbers: int) -> float:
    """Return how many seconds it took."""
    began = time.perf_counter()
    if verb == "chain":
        chain(*numbers)
    else:
        count, at_once = numbers
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(lambda _: chain(1), range(count)))
    return time.perf_counter() - began


def durability() -> str:
    """Say how the peer's database is set to write."""
    words = {"0": "OFF", "1": "NORMAL", "2": "FULL", "3": "EXTRA"}
    with _get_dbos_instance()._sys_db.engine.connect() as connection:
        mode = connection.execute(sqlalchemy.text("PRAGMA journal_mode")).scalar()
        level = str(connection.execute(sqlalchemy.text("PRAGMA synchronous")).scalar())
    return f"journal_mode={mode}, synchronous={words[level]}"


DBOS.launch()
print(durability(), flush=True)
for line in sys.stdin:
    verb, *numbers = line.split()
    print(measure(verb, *map(int, numbers)), flush=True)
DBOS.destroy()
