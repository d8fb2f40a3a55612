"""What a reply must be: one vector per text, of one dimension, finite, and the same as before."""

from __future__ import annotations

import math
from array import array

import orjson

#: How far two misses of one text may lie apart, number by number: TEI's batching moves last bits.
CLOSE = 1e-5


class WrongReply(Exception):
    """A reply that is none; its kind is counted."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Judge:
    """Keeps the first vectors of a bounded set of texts and holds every reply against them."""

    def __init__(self, most: int = 2000) -> None:
        self.known: list[str] = []
        self._first: dict[str, array[float]] = {}
        self._most = most
        self._dimension = 0

    def check(self, texts: list[str], content_type: str, body: bytes) -> None:
        """Raise WrongReply unless the body answers these texts."""
        if content_type != "application/json":
            raise WrongReply("not-json", f"{content_type}: {_start(body)}")
        try:
            vectors = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise WrongReply("not-json", f"{error}: {_start(body)}") from None
        if not isinstance(vectors, list) or len(vectors) != len(texts):
            found = len(vectors) if isinstance(vectors, list) else "no list of"
            raise WrongReply("count", f"{found} vectors for {len(texts)} texts")
        here: dict[str, array[float]] = {}
        for text, vector in zip(texts, map(self._numbers, vectors), strict=True):
            former = self._first.get(text) or here.setdefault(text, vector)
            # Equal ones are the rule, and C compares them fast.
            if vector != former and not _close(vector, former):
                raise WrongReply("other-vector", f"not the vector that came before: {text}")
        # Only now: of a wrong reply nothing becomes what later ones are held against.
        for text, vector in here.items():
            if len(self.known) < self._most:
                self._first[text] = vector
                self.known.append(text)

    def _numbers(self, vector: object) -> array[float]:
        if not isinstance(vector, list) or not set(map(type, vector)) <= {float, int}:
            raise WrongReply("not-finite", f"no vector of numbers: {str(vector)[:150]}")
        if not all(map(math.isfinite, vector)):
            raise WrongReply("not-finite", f"a number that is none: {str(vector)[:150]}")
        self._dimension = self._dimension or len(vector)
        if not vector or len(vector) != self._dimension:
            raise WrongReply("dimension", f"{len(vector)}, others have {self._dimension}")
        return array("d", vector)


def _close(one: array[float], other: array[float]) -> bool:
    return all(abs(a - b) <= CLOSE for a, b in zip(one, other, strict=True))


def _start(body: bytes) -> str:
    return body[:150].decode("utf-8", "replace")
