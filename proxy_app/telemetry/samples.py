"""Samples of the sums over all workers, and what happened between two of them.

A sample has what had been counted up to then; differences, rates and latencies come out of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import msgspec

from proxy_app.telemetry.metrics import EMBEDDING, LEVELS, SECONDS
from proxy_app.telemetry.tallies import Sums

#: Seconds back for which samples are kept.
WINDOW = 900.0

_RESULTS = ("hit_l1", "hit_l2", "miss")


class Sample(msgspec.Struct, array_like=True):
    """What had been counted up to ``time`` (Unix seconds).

    ``inputs`` by L1, L2, miss; ``levels`` are the requests of each level by duration (a count for
    each of SECONDS and one for what took longer); ``failed`` counts embedding requests that got a
    5xx or a 429.
    """

    time: float
    inputs: list[float]
    levels: list[list[float]]
    requests: float
    failed: float
    dropped: float


def sample(sums: Sums, now: float) -> Sample:
    """Take what the history keeps out of the sums over workers."""
    inputs = dict.fromkeys(_RESULTS, 0.0)
    levels = {level: [0.0] * (len(SECONDS) + 1) for level in LEVELS}
    requests = failed = dropped = 0.0
    for (name, labels), numbers in sums.items():
        if name == "embedrack_inputs":
            inputs[labels[0]] = numbers[0]
        elif name == "embedrack_request_seconds" and labels[1] in levels:
            levels[labels[1]] = [a + b for a, b in zip(levels[labels[1]], numbers[1:], strict=True)]
        elif name == "embedrack_requests" and labels[0] in EMBEDDING:
            requests += numbers[0]
            if labels[1] == "429" or labels[1].startswith("5"):
                failed += numbers[0]
        elif name == "embedrack_writes_dropped":
            dropped = numbers[0]
    return Sample(now, list(inputs.values()), list(levels.values()), requests, failed, dropped)


@dataclass(frozen=True)
class Point:
    """What happened between two samples: ``time`` is its end, ``seconds`` its length."""

    time: float
    seconds: float
    inputs: list[float]

    @property
    def hit_rate(self) -> float | None:
        """The share of inputs that were hits, from 0 to 1; None without inputs."""
        total = sum(self.inputs)
        return (total - self.inputs[-1]) / total if total else None


def between(older: Sample, newer: Sample) -> Point:
    """Return what happened between two samples."""
    inputs = [b - a for a, b in zip(older.inputs, newer.inputs, strict=True)]
    return Point(newer.time, newer.time - older.time, inputs)


def quantile(counts: list[float], share: float) -> float | None:
    """Return the duration in seconds that ``share`` of the values do not exceed, about.

    Values are taken as spread evenly within their bucket, as Prometheus' histogram_quantile does;
    beyond the last bound it is that bound. None without values.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, below = share * total, 0.0
    for index, count in enumerate(counts[:-1]):
        if count and below + count >= wanted:
            lower = SECONDS[index - 1] if index else 0.0
            return lower + (SECONDS[index] - lower) * (wanted - below) / count
        below += count
    return SECONDS[-1]


def within(samples: list[Sample], latest: Sample) -> list[Sample]:
    """Return the samples of the window that ends with the latest, which is the last of them."""
    return [*(one for one in samples if latest.time - WINDOW <= one.time < latest.time), latest]


def points(samples: list[Sample]) -> list[Point]:
    """Return what happened from sample to sample; the last step only if it is a second long."""
    steps = [between(one, next_one) for one, next_one in pairwise(samples)]
    return steps if not steps or steps[-1].seconds >= 1 else steps[:-1]


def latencies(older: Sample, newer: Sample) -> dict[str, dict[str, float | None]]:
    """Return by level how many requests there were, and their p50 and p95 in milliseconds."""
    by_level = {}
    for level, before, after in zip(LEVELS, older.levels, newer.levels, strict=True):
        counts = [b - a for a, b in zip(before, after, strict=True)]
        p50, p95 = (milliseconds(quantile(counts, share)) for share in (0.5, 0.95))
        by_level[level] = {"requests": sum(counts), "p50_ms": p50, "p95_ms": p95}
    return by_level


def milliseconds(seconds: float | None) -> float | None:
    """Return seconds as milliseconds, to the microsecond."""
    return None if seconds is None else round(seconds * 1000, 3)
