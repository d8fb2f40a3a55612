"""TEI's metrics, written as its Prometheus exporter writes them.

A metric appears with its first value, so that the page is empty before the first request.
"""

from __future__ import annotations

from bisect import bisect_left

_DURATION = [0.00001 * 1.5**power for power in range(1, 36)]
_BATCH_SIZE = [2.0**power for power in range(13)]
_BATCH_TOKENS = [2.0**power for power in range(21)]


class Metrics:
    """Counters, gauges and histograms by name. Used from the event loop's thread alone."""

    def __init__(self, max_input_length: int) -> None:
        self._counters: dict[str, dict[str, int]] = {}
        self._gauges: dict[str, float] = {}
        self._histograms: dict[str, _Histogram] = {}
        self._lengths = [2.0**power for power in range(20) if 2**power <= max_input_length]

    def count(self, name: str, label: str = "") -> None:
        """Add one to a counter. ``label`` as it stands in the page: ``method="single"``."""
        by_label = self._counters.setdefault(name, {})
        by_label[label] = by_label.get(label, 0) + 1

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._gauges[name] = value

    def record(self, name: str, value: float) -> None:
        """Add a value to a histogram; durations are in seconds."""
        if name not in self._histograms:
            self._histograms[name] = _Histogram(self._bounds(name))
        self._histograms[name].add(value)

    def _bounds(self, name: str) -> list[float]:
        fixed = {
            "te_request_input_length": self._lengths,
            "te_batch_next_size": _BATCH_SIZE,
            "te_batch_next_tokens": _BATCH_TOKENS,
        }
        return fixed.get(name, _DURATION)

    def page(self) -> str:
        """The page of ``/metrics``."""
        parts: list[str] = []
        for name, by_label in self._counters.items():
            lines = [
                f"{name}{{{label}}} {value}" if label else f"{name} {value}"
                for label, value in by_label.items()
            ]
            parts.append("\n".join([f"# TYPE {name} counter", *lines]))
        for name, value in self._gauges.items():
            parts.append(f"# TYPE {name} gauge\n{name} {_number(value)}")
        for name, histogram in self._histograms.items():
            parts.append("\n".join([f"# TYPE {name} histogram", *histogram.lines(name)]))
        return "".join(f"{part}\n\n" for part in parts)


class _Histogram:
    def __init__(self, bounds: list[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str) -> list[str]:
        lines, total = [], 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            total += count
            lines.append(f'{name}_bucket{{le="{_number(bound)}"}} {total}')
        total += self.counts[-1]
        lines.append(f'{name}_bucket{{le="+Inf"}} {total}')
        return [*lines, f"{name}_sum {_number(self.sum)}", f"{name}_count {total}"]


def _number(value: float) -> str:
    """Write without an exponent, and whole numbers without a point, as Rust's ``Display`` does."""
    text = repr(float(value))
    if "e" in text:
        text = f"{value:.20f}".rstrip("0")
    return text.removesuffix(".0").removesuffix(".")
