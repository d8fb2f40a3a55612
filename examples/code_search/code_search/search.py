"""A question's chunks: near by meaning, and by the words they share with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from code_search.endpoint import Endpoint
from code_search.errors import CodeSearchError
from code_search.index import Found, Indexes, Stored, only
from code_search.permalink import permalink
from code_search.words import question

MAX_TOP = 30
_MAX_CHARACTERS = 2000
#: How many of each kind are fused.
_CANDIDATES = 100
#: What the shared words weigh beside the meaning; the README tells what others were measured.
WORDS_WEIGHT = 0.2


@dataclass(frozen=True)
class Result:
    """A chunk, best first. ``score`` is what it is ordered by, up to 1; ``similarity`` the cosine.

    ``url`` is the lines' address at their host, "" where that is not known. All of it is as the
    repository has it: it must be escaped before it is shown.
    """

    path: str
    language: str
    symbol: str
    start: int
    end: int
    text: str
    score: float
    similarity: float
    url: str


async def search(
    indexes: Indexes,
    endpoint: Endpoint,
    name: str,
    query: str,
    *,
    languages: Sequence[str] = (),
    path: str = "",
    top: int = 10,
    words_weight: float = WORDS_WEIGHT,
) -> list[Result]:
    """Search the index of a source by its name; ``top`` is 1 to 30.

    Raises CodeSearchError: nothing was asked, there is no index by the model that is served, or
    endpoint or Qdrant cannot be had.
    """
    query = query.encode("utf-8", "replace").decode().strip()  # JSON has no lone surrogates
    if not query:
        raise CodeSearchError("ask something")
    if len(query) > _MAX_CHARACTERS:
        raise CodeSearchError(
            f"the question has {len(query):,} characters, more than {_MAX_CHARACTERS:,}"
        )
    if not 1 <= top <= MAX_TOP:
        raise CodeSearchError(f"1 to {MAX_TOP} results can be had, not {top}")
    model = await endpoint.info()
    stored = await indexes.find(name, model)
    condition = await indexes.condition(stored.collection, languages, path)
    [vector] = (await endpoint.embed([query])).vectors
    near = await indexes.query(stored.collection, vector, condition, _CANDIDATES)
    asked = question(query)
    shared: list[Found] = []
    if asked and words_weight:
        shared = await indexes.query(stored.collection, asked, condition, _CANDIDATES)
    cosines = {one.id: one.score for one in near}
    missing = [one.id for one in shared if one.id not in cosines]
    if missing:
        found = await indexes.query(stored.collection, vector, only(missing), len(missing))
        cosines |= {one.id: one.score for one in found}
    ranked = fused(cosines, {one.id: one.score for one in shared}, words_weight)
    payloads = {one.id: one.payload for one in (*near, *shared)}
    return [
        _result(Found(identity, score, payloads[identity]), cosines[identity], stored)
        for identity, score in ranked[:top]
    ]


def fused(
    cosines: dict[str, float], words: dict[str, float], weight: float
) -> list[tuple[str, float]]:
    """Order chunks by the weighted mean of cosine and BM25, the best of which counts as 1."""
    best = max(words.values(), default=0.0) or math.inf
    scores = {
        identity: (1 - weight) * cosine + weight * words.get(identity, 0.0) / best
        for identity, cosine in cosines.items()
    }
    return sorted(scores.items(), key=lambda one: -one[1])


def _result(found: Found, similarity: float, stored: Stored) -> Result:
    payload = found.payload
    start, end = payload["start"], payload["end"]
    return Result(
        **{key: payload[key] for key in ("path", "language", "symbol", "start", "end", "text")},
        score=found.score,
        similarity=similarity,
        url=permalink(stored.url, payload["commit"], stored.prefix + payload["path"], start, end),
    )
