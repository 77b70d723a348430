"""No-op steps and one-step runs, one commit each, against DBOS on its own SQLite."""

import http.client
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread

from tests.bench.appends import counted_commits
from tests.bench.dbos_peer import Dbos, dbos
from tests.bench.engine_house import House, house
from tests.bench.figures import Row, Target
from tests.bench.rounds import Scale, interleaved, middle, spread
from tests.bench.running import NOTHING, chain, ended, server
from tests.server import Server

AT_ONCE = 8  # where DBOS is fastest: 1 and 50 give it less


def rows(scale: Scale, directory: Path) -> Iterator[Row]:
    """Yield steps a second of a chain, and runs a second, in process and through the service."""
    with house(directory) as ours, dbos(directory) as theirs, server(directory) as running:
        yield from _chain_rows(scale, ours, running, theirs)
        yield from _run_rows(scale, ours, running, theirs)


def _chain_rows(scale: Scale, ours: House, running: Server, theirs: Dbos | None) -> Iterator[Row]:
    steps = scale.of(200, 20)
    running.create("chain", chain(steps, NOTHING))
    sides: dict[str, Callable[[], float]] = {
        "ours": partial(ours.chain, steps),
        "service": partial(_in_service, running),
    }
    peer = "DBOS is not installed"
    if theirs is not None:
        sides["DBOS"] = partial(theirs.chain, steps)
        peer = f"DBOS: {theirs.durability}"
    for warm_up in sides.values():
        warm_up()
    with counted_commits() as commits:
        found = interleaved(scale, sides)
        per_step = commits[0] / (steps * len(found["ours"]))
    rates = {name: [steps / seconds for seconds in rounds] for name, rounds in found.items()}
    note = f"{per_step:.2f} commits per step; {spread(rates['ours'])}; {peer}"
    yield _row(f"{steps} no-op steps", rates, "ours", 4.0, note)
    yield _row(f"{steps} no-op steps, service", rates, "service", None, "by the run's own duration")


def _run_rows(scale: Scale, ours: House, running: Server, theirs: Dbos | None) -> Iterator[Row]:
    running.create("one", chain(1, NOTHING))
    sizes = {"ours": scale.of(1_000, 40), "service": scale.of(1_000, 40), "DBOS": scale.of(200, 20)}
    sides: dict[str, Callable[[], float]] = {
        "ours": partial(ours.runs, sizes["ours"], at_once=AT_ONCE),
        "service": partial(_through_http, running, sizes["service"]),
    }
    if theirs is not None:
        sides["DBOS"] = partial(theirs.runs, sizes["DBOS"], at_once=AT_ONCE)
    ours.runs(20, at_once=AT_ONCE)
    found = interleaved(scale, sides)
    rates = {name: [sizes[name] / seconds for seconds in rounds] for name, rounds in found.items()}
    yield _row(
        f"one-step runs, {AT_ONCE} at once", rates, "ours", 5.0, f"in process; {spread(rates['ours'])}"
    )
    note = f"{AT_ONCE} connections that execute, until the last run has ended; {spread(rates['service'])}"
    yield _row("one-step runs, HTTP", rates, "service", None, note)


def _row(job: str, rates: dict[str, list[float]], side: str, least: float | None, note: str) -> Row:
    theirs = middle(rates["DBOS"]) if "DBOS" in rates else None
    target = None if least is None else Target("ratio", "least", least)
    return Row(f"engine, {job}", "/s", middle(rates[side]), "DBOS", theirs, target, (note,))


def _in_service(running: Server) -> float:
    """Return how long the chain takes in the service, in seconds."""
    return ended(running, running.execute("chain"))["duration"] / 1000


def _through_http(running: Server, count: int) -> float:
    """Execute ``count`` runs over a few connections and return the seconds until all have ended."""
    waiting = iter(range(count))
    last: list[str] = []

    def executing() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        location = ""
        for _ in waiting:
            connection.request("POST", "/api/v2/workflows/one/execute")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 202, answer.status
            location = answer.headers["location"]
        connection.close()
        if location:
            last.append(location.rpartition("/")[2])

    began = time.perf_counter()
    threads = [Thread(target=executing, daemon=True) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for run_id in last:  # runs begin in the order of their execution
        ended(running, run_id)
    return time.perf_counter() - began
