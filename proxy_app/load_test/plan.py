"""What a load test does: where to, how much, how fast."""

from __future__ import annotations

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
        rng = random.Random(self.seed)
        at = -self.warm_up
        counted = 0
        while True:
            at += rng.expovariate(self.rate) if self.arrivals == "poisson" else 1 / self.rate
            counted += at >= 0
            if self.is_over(at, counted - 1):
                return
            yield at

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
