"""A text's words for keyword search: identifiers whole and in parts, weighted as BM25 does.

Each word is a dimension of a sparse vector; Qdrant multiplies by the inverse document frequency
(its modifier ``idf``), so that the products' sum is BM25's score
(https://en.wikipedia.org/wiki/Okapi_BM25).
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator

_K1, _B = 1.2, 0.75
#: Words of a usual chunk; BM25 wants the mean, which changes with every write.
_USUAL = 100.0
_IDENTIFIER = re.compile(r"[^\W_][\w-]*")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\dA-Z_]+|\d+")
_COMMON_WORDS = """
a an and are as at be by can do does for from has have how i if in is it its me my of on or so that
the their then there these they this to was we what when where which who why will with you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_ENDINGS = ("ies", "ing", "ed", "es", "s", "e")


def words(text: str) -> Iterator[str]:
    """Give a text's words in lower case: ``HttpClient`` is ``httpclient``, ``http``, ``client``."""
    for found in _IDENTIFIER.finditer(text):
        whole = found[0]
        parts = _PART.findall(whole)
        if len(parts) > 1:
            yield whole.lower()
        for part in parts:
            word = part.lower()
            if word not in _COMMON:
                yield _stem(word)


def weights(text: str) -> dict[int, float]:
    """Return a document's sparse vector: how much each word says about it."""
    counts = Counter(words(text))
    length = sum(counts.values()) / _USUAL
    found: dict[int, float] = {}
    for word, count in counts.items():
        found[_dimension(word)] = count * (_K1 + 1) / (count + _K1 * (1 - _B + _B * length))
    return found


def question(text: str) -> dict[int, float]:
    """Return a question's sparse vector: every word once."""
    return {_dimension(word): 1.0 for word in words(text)}


def _dimension(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "replace"))


def _stem(word: str) -> str:
    """Cut the commonest endings, so that ``written lists`` and ``list`` meet."""
    for ending in _ENDINGS:
        if len(word) - len(ending) >= 3 and word.endswith(ending):
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word
