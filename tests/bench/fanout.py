"""One run watched by a thousand at once: bursts and paced events, against hubs that keep nothing, and NATS."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct

from tests.bench.client.crowd import Heard, crowd
from tests.bench.figures import Row, Target
from tests.bench.nats_peer import Nats, nats
from tests.bench.rounds import Scale, interleaved, middle, spread
from tests.bench.running import server
from tests.bench.sides import Kind, fed, kinds
from tests.server import Server

BURST = 200
BURSTS = 4  # one after the other, the first unmeasured
PACES = {"ours": (100, 500, 5_000), "guide's hub": (100, 500), "best hub": (100, 500), "NATS": (100,)}
GRACE_S = 3.0
ROW_S = 75.0


class Fanned(Struct, frozen=True):
    """What one round of a side found: its bursts, and what it did at each pace with the cores it used."""

    watchers: int
    bursts: list[Heard]
    paced: dict[int, Heard]
    cores: dict[int, float]


def rows(scale: Scale, directory: Path) -> Iterator[Row]:
    """Yield deliveries a second of a burst, and latency, CPU and who is left at each pace."""
    watchers = scale.of(1_000, 40)
    with server(directory) as running, nats(directory) as running_nats:
        sides: dict[str, Callable[[], Fanned]] = {
            kind: partial(_fan, kind, scale, watchers, running, running_nats) for kind in kinds(running_nats)
        }
        found = interleaved(scale, sides, row_s=ROW_S)
    yield from _burst_rows(found, watchers)
    yield from _hundred_rows(found, watchers)
    yield from _faster_rows(found, watchers)


def _fan(kind: Kind, scale: Scale, watchers: int, running: Server, running_nats: Nats | None) -> Fanned:
    seconds = 0.2 if scale.quick else 2.0
    paced, cores = {}, {}
    with crowd() as watching, fed(kind, watching, running, running_nats) as side:
        watching.connect(side.place, each=watchers)
        bursts = [watching.produce(BURST) for _ in range(scale.of(BURSTS, 2))]
        for per_s in PACES[kind]:
            used = side.cpu_s()
            heard = watching.produce(int(per_s * seconds), per_s=per_s, grace_s=GRACE_S)
            paced[per_s] = heard
            cores[per_s] = (side.cpu_s() - used) / max(heard.seconds, seconds)
    return Fanned(watchers, bursts[1:], paced, cores)


Found = dict[str, list[Fanned]]


def _burst_rows(found: Found, watchers: int) -> Iterator[Row]:
    rates = {
        side: [burst.per_s for round_ in rounds for burst in round_.bursts] for side, rounds in found.items()
    }
    p99s = {
        side: middle([burst.p99_ms for round_ in rounds for burst in round_.bursts])
        for side, rounds in found.items()
    }
    for peer, least in (("guide's hub", 9.0), ("best hub", 3.0), ("NATS", 5.0)):
        notes = [
            f"{side}: {spread(rates[side])}; p99 {p99s[side]:.0f} ms"
            for side in ("ours", peer)
            if side in rates
        ]
        yield Row(
            f"fan-out, {watchers:,} watchers, burst of {BURST}", "/s", middle(rates["ours"]),
            peer, middle(rates[peer]) if peer in rates else None, Target("ratio", "least", least),
            tuple(notes if peer == "guide's hub" else notes[1:]),
        )  # fmt: skip


def _hundred_rows(found: Found, watchers: int) -> Iterator[Row]:
    def row(what: str, unit: str, value: Callable[[Fanned], float], most: float) -> Row:
        values = {side: middle([value(round_) for round_ in rounds]) for side, rounds in found.items()}
        others = ", ".join(
            f"{side} {values[side]:.3g} {unit}" for side in ("best hub", "NATS") if side in values
        )
        return Row(
            f"fan-out, {watchers:,} watchers, 100 events/s, {what}", unit, values["ours"],
            "guide's hub", values.get("guide's hub"), Target("ratio", "most", most),
            (others,) if others else (),
        )  # fmt: skip

    yield row("p50", "ms", lambda round_: round_.paced[100].p50_ms, 0.8)
    yield row("p99", "ms", lambda round_: round_.paced[100].p99_ms, 0.8)
    yield row("CPU", "cores", lambda round_: round_.cores[100], 0.5)


def _faster_rows(found: Found, watchers: int) -> Iterator[Row]:
    ours = found["ours"]
    for per_s in (500, 5_000):
        job = f"fan-out, {watchers:,} watchers, {per_s:,} events/s"
        left = {
            side: min(round_.paced[per_s].watchers for round_ in rounds)
            for side, rounds in found.items()
            if per_s in PACES[side]
        }
        yield Row(
            f"{job}, watchers left", "", left["ours"], "guide's hub" if per_s == 500 else None,
            left.get("guide's hub"), Target("figure", "least", watchers),
            tuple(f"{side}: {_paced(rounds, per_s)}" for side, rounds in found.items() if per_s in PACES[side]),
        )  # fmt: skip
        if per_s == 500:
            best = [round_.paced[per_s].p99_ms for round_ in found.get("best hub", [])]
            yield Row(
                f"{job}, p99", "ms", middle([round_.paced[per_s].p99_ms for round_ in ours]),
                "best hub", middle(best) if best else None, Target("figure", "most", 60),
            )  # fmt: skip
        else:
            yield Row(
                f"{job}, deliveries", "/s", middle([round_.paced[per_s].per_s for round_ in ours]),
                target=Target("figure", "least", 4_000_000 * watchers / 1_000),
            )  # fmt: skip


def _paced(rounds: list[Fanned], per_s: int) -> str:
    heard = [round_.paced[per_s] for round_ in rounds]
    missing = max(each.missing / max(each.missing + each.delivered, 1) for each in heard)
    return (
        f"p50 {middle([each.p50_ms for each in heard]):.1f} ms, p99 {middle([each.p99_ms for each in heard]):.1f} ms, "
        f"{middle([each.per_s for each in heard]):,.0f} /s, {middle([round_.cores[per_s] for round_ in rounds]):.2f} cores, "
        f"{missing:.0%} not there {GRACE_S:g} s after the last was due"
    )
