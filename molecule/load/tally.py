"""What a run saw: counts, times, and the first failures whole."""

from __future__ import annotations

import re
import time
from array import array
from collections import Counter
from datetime import datetime, timezone

#: The kinds of failure; a status other than 200 is ``status-503``.
KINDS = (
    *("refused", "connect", "reset", "timeout"),
    *("not-json", "count", "dimension", "not-finite", "other-vector"),
)


class Tally:
    """Counts requests; a request fails once at most."""

    def __init__(self) -> None:
        self.requests = 0
        self.inputs = 0
        self.hits = 0
        self.misses = 0
        self.kinds: Counter[str] = Counter()
        self._failures: list[dict[str, object]] = []
        self._times = array("d")
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the run has been going."""
        return time.monotonic() - self._began

    def good(self, seconds: float, cache: str) -> None:
        """Count a good reply: the time that it took and its ``X-Cache``."""
        self._times.append(seconds)
        if found := re.search(r"hits=(\d+); misses=(\d+)", cache):
            self.hits += int(found[1])
            self.misses += int(found[2])

    def failed(self, kind: str, message: str) -> None:
        """Count a failure; the first 20 are kept with when they happened."""
        self.kinds[kind] += 1
        if len(self._failures) < 20:
            now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            at = round(self.seconds, 3)
            self._failures.append({"at": at, "time": now, "kind": kind, "message": message[:200]})

    def too_many(self, allowed: dict[str, int]) -> bool:
        """Tell whether the run failed. One that sent nothing did: it proves nothing."""
        over = any(count > allowed.get(kind, 0) for kind, count in self.kinds.items())
        return over or not self.requests

    def line(self) -> str:
        """Say in a line what was seen so far."""
        kinds = ", ".join(f"{kind}={count}" for kind, count in self.kinds.items())
        return (
            f"load: {self.seconds:.0f} s, {self.requests} requests, {self.inputs} inputs "
            f"({self.hits} hits, {self.misses} misses), "
            f"failed: {self.kinds.total()}{f' ({kinds})' if kinds else ''}"
        )

    def report(self) -> dict[str, object]:
        """Describe the run; times are those of good replies."""
        times = sorted(self._times) or [0.0]
        return {
            "requests": self.requests,
            "failed": self.kinds.total(),
            "kinds": dict(self.kinds),
            "inputs": self.inputs,
            "hits": self.hits,
            "misses": self.misses,
            "seconds": round(self.seconds, 1),
            "p50_ms": round(times[len(times) // 2] * 1000, 1),
            "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 1),
            "max_ms": round(times[-1] * 1000, 1),
            "failures": self._failures,
        }
