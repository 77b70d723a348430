"""A finished run replayed over WebSocket from the real server, against the same bytes from a bare socket."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from service.domain.events import Payload, RunComplete, RunStart, StepComplete, StepLog, StepStart
from service.log.sqlite import SqliteLog
from service.repository import run_frames
from tests.bench.appends import TIMESTAMP
from tests.bench.ceiling import framed, raw_sender
from tests.bench.client import Watched, language, watch
from tests.bench.figures import Row, Target
from tests.bench.rounds import Scale, interleaved, middle, spread
from tests.bench.running import RUNS, ended
from tests.server import Server

RUN = "replayed"
CLIENTS = 8
DEFINITION = {"steps": {"print": {"id": "print", "type": "command", "config": {"command": "true"}}}}


def rows(scale: Scale, directory: Path) -> Iterator[Row]:
    """Yield messages a second to one client and to eight, and when each of the eight has its first."""
    events = scale.of(200_000, 5_000)
    with TemporaryDirectory(dir=directory) as place:
        shown = asyncio.run(_seed(Path(place) / "tailrace.db", events))
        with Server(Path(place)) as running, raw_sender(framed(shown)) as port:
            ended(running, RUN)  # the projections have read it all
            path = f"{RUNS}/{RUN}/stream"
            sides: dict[str, Callable[[], list[Watched]]] = {
                "ours": partial(watch, running.port, path),
                "ceiling": partial(watch, port, "/"),
                "ours, all": partial(watch, running.port, path, clients=CLIENTS),
                "ceiling, all": partial(watch, port, "/", clients=CLIENTS),
            }
            sides["ours"]()
            found = interleaved(scale, sides)
    for results in found.values():
        for watched in sum(results, []):
            said = (watched.messages, watched.bytes, watched.code)
            assert said == (events, sum(map(len, shown)), 1000), watched
    yield from _report(found)


def _report(found: dict[str, list[list[Watched]]]) -> Iterator[Row]:
    rates = {name: [_rate(watched) for watched in rounds] for name, rounds in found.items()}
    firsts = [round_[0].first_ms for round_ in found["ours"]]
    yield Row(
        "replay, 1 client", "/s", middle(rates["ours"]), "raw loopback", middle(rates["ceiling"]),
        Target("figure", "least", 100_000),
        (f"client in {language()}; first message after {middle(firsts):.1f} ms; {spread(rates['ours'])}",),
    )  # fmt: skip
    yield Row(
        f"replay, {CLIENTS} clients, sum", "/s", middle(rates["ours, all"]),
        "raw loopback", middle(rates["ceiling, all"]), None, (spread(rates["ours, all"]),),
    )  # fmt: skip
    worst = [max(watched.first_ms for watched in round_) for round_ in found["ours, all"]]
    ceiling = [max(watched.first_ms for watched in round_) for round_ in found["ceiling, all"]]
    yield Row(
        f"replay, {CLIENTS} clients, last to get its first", "ms", middle(worst),
        "raw loopback", middle(ceiling), Target("figure", "most", 100),
        (f"from sending the upgrade; {spread(worst)} (ms)",),
    )  # fmt: skip


def _rate(watched: Sequence[Watched]) -> float:
    """Return messages a second over all clients of a round."""
    return sum(client.messages for client in watched) / max(client.total_ms for client in watched) * 1000


async def _seed(path: Path, step_events: int) -> list[bytes]:
    """Write a finished run with ``step_events`` events, and return those that a watcher is sent."""
    lines = (
        StepLog("print", "info", f"a line of output as programs print them, number {number}", TIMESTAMP)
        for number in range(step_events - 2)
    )
    payloads: list[Payload] = [
        RunStart("w", 1, DEFINITION, {}, {"type": "bench"}, "hash"),
        StepStart("print", "print", 1),
        *lines,
        StepComplete("print", "print", "success", 1, 1),
        RunComplete("success", 1, step_events),
    ]
    shown: list[bytes] = []
    log = SqliteLog.open(path)
    after = -1
    for frame in run_frames(RUN, payloads, after=after, timestamp=TIMESTAMP):
        await log.append(f"run/{RUN}", frame, expected_seq=after)
        after += len(frame)
        shown += [event.data for event in frame]
    await log.close()
    return shown[1:-1]
