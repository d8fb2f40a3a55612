"""Measures of rankings, as information retrieval has them: recall at k, reciprocal rank."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def files_of(ranking: Iterable[str]) -> list[str]:
    """Return each file once, where its best chunk stands; ``ranking`` has a file per chunk."""
    return list(dict.fromkeys(ranking))


def recall(ranking: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Return the share of the relevant files that is among the first ``k``."""
    return len(set(ranking[:k]) & set(relevant)) / len(relevant)


def reciprocal_rank(ranking: Sequence[str], relevant: Collection[str]) -> float:
    """Return 1 / the place (from 1) of the first relevant file, 0.0 where there is none."""
    return next((1 / place for place, file in enumerate(ranking, 1) if file in relevant), 0.0)


def mean(values: Collection[float]) -> float:
    """Return the arithmetic mean of at least one value."""
    return sum(values) / len(values)
