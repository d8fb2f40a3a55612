"""Counters, gauges and histograms as plain numbers of one process: counting costs next to nothing.

prometheus_client's own values of several processes cost 5 µs each, since every one of them writes
into a file. Here a process counts in plain numbers, and now and then leaves all of them in a folder
(``ledger``) as one snapshot. Used from the event loop's thread alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

#: A series: the name of its family, and the values of its labels.
Name = tuple[str, tuple[str, ...]]
#: The numbers of each series: a counter's or a gauge's value; a histogram's sum and its buckets.
Sums = dict[Name, list[float]]


class Snapshot(msgspec.Struct):
    """All numbers of one process at one moment. Gauges go with their process, counts stay."""

    counts: list[tuple[str, tuple[str, ...], list[float]]]
    gauges: list[tuple[str, tuple[str, ...], list[float]]]


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, amount: float = 1) -> None:
        """Add to it."""
        self.value += amount

    def numbers(self) -> list[float]:
        """Return the value alone."""
        return [self.value]


class Gauge:
    """A number as it is now."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def set(self, value: float) -> None:
        """Replace it."""
        self.value = value

    def numbers(self) -> list[float]:
        """Return the value alone."""
        return [self.value]


class Histogram:
    """How many values there were up to each bound (inclusive), and beyond the last; their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def numbers(self) -> list[float]:
        """Return the sum, then the count of each bucket alone (not cumulative)."""
        return [self._sum, *self._counts]


Series = TypeVar("Series", Counter, Gauge, Histogram)


class Family(Generic[Series]):
    """The series of one name, one for each set of label values."""

    def __init__(
        self, name: str, meaning: str, labels: tuple[str, ...], make: Callable[[], Series]
    ) -> None:
        self.name = name
        self.meaning = meaning
        self.label_names = labels
        self.series: dict[tuple[str, ...], Series] = {}
        self._make: Callable[[], Series] = make

    def labels(self, *values: str) -> Series:
        """Return the series of these values, in the labels' order; it is there from then on."""
        series = self.series.get(values)
        if series is None:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} has the labels {self.label_names}, not {values}")
            series = self.series[values] = self._make()
        return series


class Tallies:
    """All families of a process."""

    def __init__(self) -> None:
        self.counters: list[Family[Counter]] = []
        self.gauges: list[Family[Gauge]] = []
        self.histograms: list[Family[Histogram]] = []
        self._bounds: dict[str, tuple[float, ...]] = {}

    def counter(self, name: str, meaning: str, *labels: str) -> Family[Counter]:
        """Add a family of counters; its name without ``_total``."""
        family = Family(name, meaning, labels, Counter)
        self.counters.append(family)
        return family

    def gauge(self, name: str, meaning: str, *labels: str) -> Family[Gauge]:
        """Add a family of gauges, which are summed over processes."""
        family = Family(name, meaning, labels, Gauge)
        self.gauges.append(family)
        return family

    def histogram(
        self, name: str, meaning: str, *labels: str, bounds: tuple[float, ...]
    ) -> Family[Histogram]:
        """Add a family of histograms with these upper bounds."""
        family = Family(name, meaning, labels, lambda: Histogram(bounds))
        self.histograms.append(family)
        self._bounds[name] = bounds
        return family

    def snapshot(self) -> Snapshot:
        """Return all numbers as they are now."""
        counts = [*_numbers(self.counters), *_numbers(self.histograms)]
        return Snapshot(counts, list(_numbers(self.gauges)))

    def collect(self, sums: Sums) -> Iterator[Metric]:
        """Give what prometheus_client writes, out of the sums over processes."""
        for counters in self.counters:
            metric = CounterMetricFamily(
                counters.name, counters.meaning, labels=counters.label_names
            )
            for values, numbers in _of(counters.name, sums):
                metric.add_metric(values, numbers[0])
            yield metric
        for gauges in self.gauges:
            gauge = GaugeMetricFamily(gauges.name, gauges.meaning, labels=gauges.label_names)
            for values, numbers in _of(gauges.name, sums):
                gauge.add_metric(values, numbers[0])
            yield gauge
        for histograms in self.histograms:
            histogram = HistogramMetricFamily(
                histograms.name, histograms.meaning, labels=histograms.label_names
            )
            for values, numbers in _of(histograms.name, sums):
                buckets = cumulative(self._bounds[histograms.name], numbers[1:])
                histogram.add_metric(values, buckets, numbers[0])
            yield histogram


def add(sums: Sums, series: Iterable[tuple[str, tuple[str, ...], list[float]]]) -> None:
    """Add a snapshot's series to the sums."""
    for name, values, numbers in series:
        former = sums.get((name, values))
        sums[name, values] = (
            numbers
            if former is None
            else [one + other for one, other in zip(former, numbers, strict=True)]
        )


def total(sums: Sums, name: str, *labels: str) -> float:
    """Return the value of a counter or gauge; 0 where nobody has it."""
    return sums.get((name, labels), [0.0])[0]


def cumulative(bounds: tuple[float, ...], counts: list[float]) -> list[tuple[str, float]]:
    """Write buckets as Prometheus has them: everything up to each bound."""
    total = 0.0
    buckets = []
    for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


def _numbers(
    families: Iterable[Family[Series]],
) -> Iterator[tuple[str, tuple[str, ...], list[float]]]:
    for family in families:
        for values, series in family.series.items():
            yield family.name, values, series.numbers()


def _of(name: str, sums: Sums) -> list[tuple[tuple[str, ...], list[float]]]:
    return sorted((values, numbers) for (family, values), numbers in sums.items() if family == name)
