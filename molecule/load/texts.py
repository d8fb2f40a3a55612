"""The texts of a run: new ones and ones sent before, so that hits and misses mix."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Sequence

#: How much of a batch was sent before, by the name of the mix.
MIXES = {"mixed": 0.5, "new": 0.0, "mostly-seen": 0.9, "seen": 1.0}
#: Short requests are common and long ones are split by the proxy: both ways are taken.
SIZES = (1, 1, 1, 3, 8, 40)
#: Words of a text and how often: mostly few, since an embedder on a CPU takes its time for many.
LENGTHS, WEIGHTS = (2, 10, 100), (70, 28, 2)
_WORDS = ("a", "vector", "of the", "größte", "cache", "文字", "remembers", "🙂", "twice.")


class Texts:
    """Draws batches; ``known`` is what was answered before and grows while the run goes on."""

    def __init__(self, mix: str, known: Sequence[str]) -> None:
        self._share = MIXES[mix]
        self._known = known
        # A run's new texts are new to a cache that earlier runs have filled, too.
        self._run = uuid.uuid4().hex[:8]
        self._numbers = itertools.count()

    def batch(self) -> list[str]:
        """Draw a batch; now and then it has a text twice."""
        texts = [self._text() for _ in range(random.choice(SIZES))]
        if random.random() < 0.1:
            texts[-1] = texts[0]
        return texts

    def _text(self) -> str:
        # A few dozen first: from one known text alone, every batch would be that text repeated.
        if len(self._known) >= 50 and random.random() < self._share:
            return random.choice(self._known)
        [length] = random.choices(LENGTHS, WEIGHTS)
        words = " ".join(random.choices(_WORDS, k=length))
        return f"{self._run} {next(self._numbers)} {words}"
