"""Batches of which some texts are cached and some are not: is each answer the text's own?

The right vectors are known, since the server behind makes them out of the texts.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from bench import servers
from bench.peers.upstream import stand_in, texts_vector

#: Requests of each shape, each of texts of its own.
ROUNDS = 5

Shape = Callable[[list[str], list[str]], list[str]]

#: How cached texts (first list) and new ones (second list, four each) are put together.
SHAPES: dict[str, Shape] = {
    "all new": lambda _, new: new,
    "all cached, in another order": lambda cached, _: cached[::-1],
    "first cached, others new": lambda cached, new: [cached[0], *new],
    "last cached, others new": lambda cached, new: [*new, cached[0]],
    "one in the middle new": lambda cached, new: [*cached[:2], new[0], *cached[2:]],
    "alternating": lambda cached, new: [
        text for pair in zip(cached, new, strict=True) for text in pair
    ],
    "new ones twice each": lambda _, new: [*new, *new],
    "cached and new, twice each": lambda cached, new: [cached[0], new[0], cached[0], new[0]],
}

_words = itertools.count()


@dataclass(frozen=True)
class Verdict:
    """``problem`` is empty where a reply is right, else it says what is wrong first."""

    problem: str = ""


def judge(texts: list[str], reply: dict[str, Any]) -> Verdict:
    """Compare OpenAI's reply with the texts: count, then ``index`` 0…n-1, then each vector."""
    data = reply["data"]
    if len(data) != len(texts):
        return Verdict(f"{len(data)} embeddings for {len(texts)} texts")
    indices = [entry["index"] for entry in data]
    if indices != list(range(len(texts))):
        return Verdict(f"index {', '.join(map(str, indices))}")
    server = stand_in()
    # As float32, which is what a vector consists of, however its numbers are printed.
    own = {text: array("f", orjson.loads(texts_vector(server, text))) for text in texts}
    for place, (text, entry) in enumerate(zip(texts, data, strict=True)):
        given = array("f", entry["embedding"])
        if given != own[text]:
            whose = [texts.index(other) for other, vector in own.items() if vector == given]
            owner = f"of the text at {whose[0]}" if whose else "of none of the texts"
            return Verdict(f"the vector at {place} is that {owner}")
    return Verdict()


def compare(url: str) -> dict[str, list[Verdict]]:
    """Send every shape ROUNDS times to an endpoint with a cache; the verdicts by shape."""
    return {name: [once(url, shape) for _ in range(ROUNDS)] for name, shape in SHAPES.items()}


def summary(verdicts: list[Verdict]) -> str:
    """Say how many of a shape's replies were right, and what the first wrong one had."""
    problems = [verdict.problem for verdict in verdicts if verdict.problem]
    if not problems:
        return f"right, {len(verdicts)} of {len(verdicts)}"
    return f"wrong, {len(problems)} of {len(verdicts)}: {problems[0]}"


def once(url: str, shape: Shape) -> Verdict:
    """Have four texts cached, send a batch of them and of four new ones, and judge the reply."""
    word = f"mixed {next(_words)}"
    cached, new = ([f"{word} {kind} {i}" for i in range(4)] for kind in ("cached", "new"))
    ask(url, cached)
    texts = shape(cached, new)
    return judge(texts, ask(url, texts))


def ask(url: str, texts: list[str], **fields: object) -> dict[str, Any]:
    """Post texts in OpenAI's dialect; returns its reply."""
    body = {"model": "bench", "input": texts} | fields
    reply: dict[str, Any] = orjson.loads(servers.fetch(url + "/v1/embeddings", body)[1])
    return reply
