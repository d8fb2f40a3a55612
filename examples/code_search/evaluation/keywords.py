"""Keyword search: BM25 (Lucene's form, k1 1.5, b 0.75) over chunks, by `bm25s`."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
from code_search.words import words


class Keywords:
    """An index over texts in memory; identifiers count whole and by their parts."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Index the texts (at least one)."""
        self._index = bm25s.BM25(method="lucene")
        self._index.index([list(words(text)) for text in texts], show_progress=False)
        self._count = len(texts)

    def search(self, query: str, top: int) -> list[int]:
        """Return the places of the best texts, best first; those without a word are left out."""
        asked = [list(words(query))]
        found, scores = self._index.retrieve(asked, k=min(top, self._count), show_progress=False)
        return [int(place) for place, score in zip(found[0], scores[0], strict=True) if score > 0]
