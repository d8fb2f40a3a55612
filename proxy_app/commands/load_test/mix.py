"""The texts of a load test: which, how often, how many in a request."""

from __future__ import annotations

import itertools
import random
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import orjson

#: Of these a generated text is made.
_WORDS = (
    *("a", "the", "of", "in", "with", "near", "far", "cold", "warm", "small", "large", "first"),
    *("vector", "cache", "query", "answer", "index", "model", "token", "graph", "search", "rack"),
    *("straße", "naïve", "文字", "поиск", "λόγος", "🙂"),
)


@dataclass(frozen=True)
class Body:
    """A request's body and how many texts it has."""

    content: bytes
    texts: int


def generated(count: int, words: int, seed: int) -> list[str]:
    """Make texts; the same seed makes the same ones."""
    rng = random.Random(seed)
    return [f"{number} {' '.join(rng.choices(_WORDS, k=words))}" for number in range(count)]


def sizes_of(text: str) -> tuple[range, ...]:
    """Read batch sizes, as ``32``, ``1-64`` or ``1,1,1,8-16``; raises ValueError."""
    sizes = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if found is None:
            raise ValueError(f"{text!r}: sizes such as 32, 1-64 or 1,1,1,32 are wanted")
        first, last = int(found[1]), int(found[2] or found[1])
        if not 1 <= first <= last:
            raise ValueError(f"{part.strip()!r}: sizes begin with 1, the smaller one first")
        sizes.append(range(first, last + 1))
    return tuple(sizes)


@dataclass
class Mix:
    """Draws requests out of ``texts``, the first the most frequent.

    The text of rank k is drawn with a probability in proportion to 1 / k ** ``zipf``; 0 draws all
    alike. ``new`` is the share of texts that nobody has sent before, in this run or another.
    ``sizes`` are equally likely, and so is each size of a range.
    """

    texts: Sequence[str]
    zipf: float = 1.0
    new: float = 0.0
    sizes: tuple[range, ...] = (range(1, 2),)
    fields: dict[str, object] = field(default_factory=dict)
    openai: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        weights = (1 / rank**self.zipf for rank in range(1, len(self.texts) + 1))
        self._cumulative = list(itertools.accumulate(weights))
        self._run = uuid.uuid4().hex[:8]
        self._numbers = itertools.count()

    def batch(self) -> list[str]:
        """Draw the texts of a request."""
        count = self._rng.choice(self._rng.choice(self.sizes))
        drawn = self._rng.choices(self.texts, cum_weights=self._cumulative, k=count)
        if self.new:
            for place, text in enumerate(drawn):
                if self._rng.random() < self.new:
                    drawn[place] = f"{self._run} {next(self._numbers)} {text}"
        return drawn

    def bodies(self) -> Iterator[Body]:
        """Give requests without end."""
        name = "input" if self.openai else "inputs"
        fields: dict[str, object] = {"model": "load-test"} if self.openai else {}
        fields |= self.fields
        while True:
            texts = self.batch()
            inputs = texts[0] if len(texts) == 1 else texts
            yield Body(orjson.dumps({name: inputs, **fields}), len(texts))
