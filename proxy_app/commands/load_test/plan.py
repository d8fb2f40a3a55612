"""What a load test does: where to, how much, how fast."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

ARRIVALS = ("poisson", "constant")


@dataclass(frozen=True)
class Plan:
    """A run; times are seconds, ``rate`` is requests a second and 0 for a closed loop.

    It ends after ``requests`` or ``seconds``, whichever comes first; 0 sets no end, and one of them
    has to. ``concurrency`` is how many requests may be under way.
    """

    url: str
    requests: int = 0
    seconds: float = 0.0
    warm_up: float = 0.0
    concurrency: int = 10
    rate: float = 0.0
    arrivals: str = "poisson"
    timeout: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.requests and not self.seconds:
            raise ValueError("a run needs an end: requests or seconds")

    @property
    def is_open(self) -> bool:
        """Tell whether requests start on schedule, whatever the replies do."""
        return self.rate > 0

    @property
    def is_openai(self) -> bool:
        """Tell whether the URL's route speaks OpenAI's dialect, and not TEI's."""
        return urlsplit(self.url).path.endswith("/embeddings")

    def dues(self) -> Iterator[float]:
        """Give when each request of an open loop is due, in seconds; the warm-up is below 0.

        Poisson: the gaps are exponential, as those of many clients that know nothing of each other
        are. Constant: all gaps are alike.
        """
        counted = 0
        for at in self._poisson() if self.arrivals == "poisson" else self._constant():
            if self.is_over(at, counted):
                return
            counted += at >= 0
            yield at

    def _poisson(self) -> Iterator[float]:
        rng = random.Random(self.seed)
        gaps = (rng.expovariate(self.rate) for _ in itertools.count())
        return itertools.accumulate(gaps, initial=-self.warm_up)

    def _constant(self) -> Iterator[float]:
        return (number / self.rate - self.warm_up for number in itertools.count())

    def is_over(self, at: float, counted: int) -> bool:
        """Tell whether nothing starts any more at a time, with so many counted before."""
        return bool(
            (self.seconds and at >= self.seconds) or (self.requests and counted >= self.requests)
        )

    def __str__(self) -> str:
        ends = [f"{self.requests} requests"] * bool(self.requests)
        ends += [f"{self.seconds:g} s"] * bool(self.seconds)
        warm_up = f", after {self.warm_up:g} s of warm-up" if self.warm_up else ""
        if self.is_open:
            how = f"open loop, {self.rate:g}/s ({self.arrivals}), at most {self.concurrency}"
        else:
            how = f"closed loop, {self.concurrency}"
        return f"{how} under way, {' or '.join(ends)}{warm_up}"
