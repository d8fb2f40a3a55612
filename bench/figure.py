"""A figure: what was measured, beside what it has to be."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """``value`` is a ratio or, with a unit, an amount; ``limit`` is the least or the most of it.

    ``made_of`` has what the value was made of.
    """

    name: str
    value: float
    limit: float
    made_of: str
    unit: str = ""
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Tell whether the value is what it has to be."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    @property
    def target(self) -> str:
        """Return the limit as it is read."""
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}{self.unit and ' ' + self.unit}"

    @property
    def shown(self) -> str:
        """Return the value as it is read."""
        return f"{self.value:.3g}{self.unit and ' ' + self.unit}"


def side_by_side(
    one: Callable[[], float], other: Callable[[], float], rounds: int = 3
) -> tuple[float, float, float]:
    """Measure two things in turn, so that what else the machine does touches both alike.

    Returns the median of the rounds' ratios (one over other), and the medians of both.
    """
    pairs = [(one(), other()) for _ in range(rounds)]
    ratio = statistics.median(a / b for a, b in pairs)
    return ratio, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)
