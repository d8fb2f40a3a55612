"""The figures of a run: counts, times, and a slice of them for each second."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from proxy_app.commands.load_test.outcome import Outcome

#: Upper bounds of the histogram, in seconds: 1, 2, 5 of every decade from 0.1 ms to 500 s.
BOUNDS = tuple(step * 10.0**power for power in range(-4, 3) for step in (1, 2, 5))
#: Failures whose words are kept.
_KEPT = 20


@dataclass
class Slice:
    """A second of the run: the requests that were due in it, and the times of the good ones."""

    requests: int = 0
    failed: int = 0
    times: array[float] = field(default_factory=lambda: array("d"))


class Tally:
    """Adds outcomes up; those of the warm-up are counted, and are in no figure."""

    def __init__(self) -> None:
        self.requests = self.texts = self.hits = self.misses = self.size = 0
        self.warm_up = self.warm_up_failed = 0
        self.retry_after = 0
        #: When the last reply ended: how long the run was.
        self.seconds = 0.0
        self.kinds: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.slices: dict[int, Slice] = {}
        self.failures: list[Outcome] = []
        self._late = array("d")

    def add(self, outcome: Outcome) -> None:
        """Count a request."""
        if outcome.at < 0:
            self.warm_up += 1
            self.warm_up_failed += bool(outcome.kind)
            return
        self.requests += 1
        self.seconds = max(self.seconds, outcome.at + outcome.seconds)
        self.statuses[outcome.status] += 1
        self.retry_after += outcome.retry_after
        self._late.append(outcome.late)
        slice_ = self.slices.setdefault(int(outcome.at), Slice())
        slice_.requests += 1
        if outcome.kind:
            slice_.failed += 1
            self.kinds[outcome.kind] += 1
            if len(self.failures) < _KEPT:
                self.failures.append(outcome)
            return
        self.texts += outcome.texts
        self.hits += outcome.hits
        self.misses += outcome.misses
        self.size += outcome.size
        slice_.times.append(outcome.seconds)

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return sum(self.kinds.values())

    @property
    def good(self) -> int:
        """How many requests were answered as they have to be."""
        return self.requests - self.failed

    @property
    def error_rate(self) -> float:
        """The share of requests that failed; a run that sent nothing failed as a whole."""
        return self.failed / self.requests if self.requests else 1.0

    @property
    def hit_rate(self) -> float | None:
        """The share of hits by the replies' own headers; None where none has them."""
        counted = self.hits + self.misses
        return self.hits / counted if counted else None

    def times(self) -> list[float]:
        """Return the seconds of all good requests, sorted."""
        return sorted(time for slice_ in self.slices.values() for time in slice_.times)

    def late(self) -> float:
        """Return the 99th percentile of what requests were sent late by, in seconds."""
        return percentile(sorted(self._late), 99) or 0.0


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Return the smallest of the values that so many percent of them do not exceed."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def histogram(ordered: Sequence[float]) -> list[tuple[float, int]]:
    """Count values up to each bound and above the former; the last bound is infinite.

    Only from the first to the last bound that has any.
    """
    counts = [0] * (len(BOUNDS) + 1)
    place = 0
    for value in ordered:
        while place < len(BOUNDS) and value > BOUNDS[place]:
            place += 1
        counts[place] += 1
    rows = list(zip((*BOUNDS, math.inf), counts, strict=True))
    filled = [number for number, (_, count) in enumerate(rows) if count]
    return rows[filled[0] : filled[-1] + 1] if filled else []
