"""The figures of the service in Prometheus's formats: read from the rooms when somebody asks, not before.

What they are stands in families.py; docs/metrics.md tells what to do about each.
"""

import asyncio
import re
from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from service.ops.families import Family, Seen, Sources, families
from service.ops.histogram import Histogram
from service.ops.meters import Meters

# The library takes an Accept apart without looking; scrapers send no more than this.
_ACCEPT = re.compile(r"[a-zA-Z0-9.,;=/*+ _-]{0,1000}")


class Metrics:
    """What ``/metrics`` answers. ``more``: families of rooms that bring their own."""

    def __init__(self, meters: Meters, sources: Sources, *more: Family) -> None:
        self._sources = sources
        self._families = (*families(meters, sources), *more)

    async def text(self, accept: str) -> tuple[bytes, str]:
        """Return the text in the format that ``accept`` asks for, and its media type."""
        seen = await self._sources.look()
        registry = CollectorRegistry()
        registry.register(_Read([_metric(family, seen) for family in self._families]))
        ProcessCollector(registry=registry)
        encode, media_type = _encoder(accept)
        # To read is a millisecond of the loop, to write it down is five, which nobody else need wait for.
        return await asyncio.to_thread(encode, registry), media_type


class _Read(Collector):
    """What has been read, as the library wants it."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def _metric(family: Family, seen: Seen) -> Metric:
    figures = family.read(seen)
    labels = list(family.labels)
    if family.kind == "histogram":
        histograms = HistogramMetricFamily(family.name, family.help, labels=labels)
        for values, histogram in figures:
            assert isinstance(histogram, Histogram)
            histograms.add_metric(values, histogram.buckets(), histogram.total)
        return histograms
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=labels)
    for values, figure in figures:
        assert not isinstance(figure, Histogram)
        metric.add_metric(values, figure)
    return metric


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept if _ACCEPT.fullmatch(accept) else "")
    except (ValueError, TypeError):  # a version that is none
        return choose_encoder("")
