"""Runs replayed over WebSocket, against JetStream over its own and the same frames from a bare socket."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from tests.bench.ceiling import framed, raw_sender
from tests.bench.client import Watched, watch
from tests.bench.figures import Row, Target
from tests.bench.nats_peer import Nats, nats
from tests.bench.rounds import Scale, interleaved, middle, spread
from tests.bench.running import RUNS, settled
from tests.bench.seeded import EVENT_BYTES, Seed, write
from tests.server import Server

CLIENTS = 8
ROW_S = 60.0
JETSTREAM = "JetStream, WebSocket"
CEILING = "raw loopback"
FRAME_HEAD_BYTES = 4  # of events between 126 and 65,535 bytes


class Stage(Struct, frozen=True):
    """What is replayed: one run, one for each of several clients, one that has not ended; and from whom."""

    server: Server
    one: Seed
    each: list[Seed]
    open: Seed
    ceiling_port: int
    nats: Nats | None

    def ours(self, *seeds: Seed) -> list[Watched]:
        paths = [f"{RUNS}/{seed.run_id}/stream" for seed in seeds]
        found = watch(self.server.port, *paths)
        for watched, seed in zip(found, seeds, strict=True):
            assert (watched.messages, watched.code) == (seed.events, 1000), watched
        return found

    def first(self) -> list[Watched]:
        """Replay as the first client after a start."""
        self.server.restart()
        settled(self.server)
        return self.ours(self.one)

    def unended(self) -> list[Watched]:
        path = f"{RUNS}/{self.open.run_id}/stream"
        return watch(self.server.port, path, messages=self.open.events)

    def ceiling(self, clients: int) -> list[Watched]:
        return watch(self.ceiling_port, *["/"] * clients)

    def jetstream(self, *seeds: Seed) -> list[Watched]:
        assert self.nats is not None
        return self.nats.watch(*[seed.run_id for seed in seeds], messages=seeds[0].events)


def rows(scale: Scale, directory: Path) -> Iterator[Row]:
    """Yield messages a second to one client and to eight, and when the last of these has its first."""
    one = Seed("one", scale.of(200_000, 5_000))
    each = [Seed(f"each-{number}", scale.of(100_000, 2_000)) for number in range(CLIENTS)]
    open_ = Seed("open", one.events, finished=False)
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory(dir=directory)))
        write(place / "tailrace.db", [one, *each, open_])
        frames = framed(one.shown())
        stage = Stage(
            stack.enter_context(Server(place)),
            one,
            each,
            open_,
            stack.enter_context(raw_sender(frames)),
            stack.enter_context(nats(place)),
        )
        if stage.nats:
            for seed in (one, *each):
                stage.nats.store([seed.run_id], events=seed.events, event_bytes=EVENT_BYTES)
        stage.first()  # whatever is made at the first replay of all is there from now on
        found = interleaved(scale, _sides(stage), row_s=ROW_S)
    whole = {(one.events, len(frames) - FRAME_HEAD_BYTES * one.events)}
    for side in ("cold", "warm", "run", "ceiling"):
        assert {(watched.messages, watched.bytes) for watched in sum(found[side], [])} == whole, side
    yield from _one_client(found)
    yield from _clients(found)


def _sides(stage: Stage) -> dict[str, Callable[[], list[Watched]]]:
    sides: dict[str, Callable[[], list[Watched]]] = {
        "cold": stage.first,
        "warm": partial(stage.ours, stage.one),
        "ceiling": partial(stage.ceiling, 1),
        "open": stage.unended,
        "runs": partial(stage.ours, *stage.each),
        "run": partial(stage.ours, *[stage.one] * CLIENTS),
    }
    if stage.nats is not None:
        sides |= {
            "JetStream": partial(stage.jetstream, stage.one),
            "JetStream, runs": partial(stage.jetstream, *stage.each),
            "JetStream, run": partial(stage.jetstream, *[stage.one] * CLIENTS),
        }
    return sides


Found = dict[str, list[list[Watched]]]


def _one_client(found: Found) -> Iterator[Row]:
    yield _row(
        "replay, 1 client, first after a start", found, "cold", JETSTREAM, "JetStream", 8.0, first_too=True
    )
    yield _row("replay, 1 client, first after a start", found, "cold", CEILING, "ceiling", 0.5)
    yield _row("replay, 1 client, again", found, "warm", CEILING, "ceiling", 0.8, first_too=True)
    yield _row("replay, 1 client, run not ended", found, "open", JETSTREAM, "JetStream", 2.0, first_too=True)


def _clients(found: Found) -> Iterator[Row]:
    for name, side, peer in (
        (f"replay, {CLIENTS} clients on {CLIENTS} runs", "runs", "JetStream, runs"),
        (f"replay, {CLIENTS} clients on 1 run", "run", "JetStream, run"),
    ):
        yield _row(f"{name}, sum", found, side, JETSTREAM, peer, 10.0)
        lasts = {
            each: [max(_firsts(round_)) for round_ in found[each]] for each in (side, peer) if each in found
        }
        yield Row(
            f"{name}, last to get its first", "ms", middle(lasts[side]),
            JETSTREAM, middle(lasts[peer]) if peer in lasts else None, Target("figure", "most", 50),
            (f"from sending the upgrade; {spread(lasts[side])} (ms)",),
        )  # fmt: skip


def _row(
    job: str, found: Found, side: str, against: str, peer: str, least: float, *, first_too: bool = False
) -> Row:
    rates = {each: [_rate(watched) for watched in found[each]] for each in (side, peer) if each in found}
    notes = [spread(rates[side])]
    if first_too:
        firsts = {each: middle([_firsts(round_)[0] for round_ in found[each]]) for each in rates}
        notes.append("first message after " + ", ".join(f"{ms:.1f} ms ({who})" for who, ms in firsts.items()))
    return Row(
        job, "/s", middle(rates[side]), against, middle(rates[peer]) if peer in rates else None,
        Target("ratio", "least", least), tuple(notes),
    )  # fmt: skip


def _firsts(watched: Sequence[Watched]) -> list[float]:
    return [client.first_ms for client in watched]


def _rate(watched: Sequence[Watched]) -> float:
    """Return messages a second over all clients of a round."""
    return sum(client.messages for client in watched) / max(client.total_ms for client in watched) * 1000
