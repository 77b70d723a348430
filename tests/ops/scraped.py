"""What a scrape of the real service says, as a client of Prometheus reads it."""

import re
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.server import Server

ROOT = Path(__file__).parents[2]


class Scrape:
    """One scrape: ``families`` by the name that is written after # TYPE, ``samples`` by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def __call__(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of that name with those labels; 0 if there are none."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def scrape(server: Server) -> Scrape:
    answer = server.get("/metrics")
    assert answer.status == 200, answer
    return Scrape(answer.body.decode())


def until(server: Server, holds: Callable[[Scrape], bool], timeout_s: float = 20.0) -> Scrape:
    """Scrape until it ``holds``."""
    deadline = time.monotonic() + timeout_s
    while not holds(found := scrape(server)):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)
    return found


def documented() -> list[str]:
    """The metrics that have a row in docs/metrics.md."""
    return re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
