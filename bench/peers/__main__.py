"""Embedrack beside LiteLLM's proxy: ``python -m bench.peers`` sends both the same requests.

One worker each, caches in memory, 1024-d vectors, OpenAI's dialect, behind each a server that makes
a vector of its own of every text; 2 s of wrk a figure, three times in turn. A reply is right where
it has one embedding a text, `index` counts from 0, and each vector is the text's own.

Prints a table and writes ``bench/results/peers.md`` and ``.json``. Exits with 1 where a reply of
ours is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import orjson

from bench import load, servers, wrk
from bench.__main__ import RESULTS, machine
from bench.figure import side_by_side
from bench.peers import litellm, mixed
from tests.stand_ins.process import first_line, started

#: Requests that ask for the same new text at the same moment, and the seconds that a batch takes.
IDENTICAL, DELAY = 20, 0.3
#: A text of the batch of duplicates stands in it so many times.
COPIES = 8

PEERS = ("Embedrack", "LiteLLM")
Verdicts = dict[str, list[mixed.Verdict]]


@dataclass(frozen=True)
class Row:
    """One figure of both."""

    name: str
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Return ours over theirs."""
        return self.ours / self.theirs


@dataclass(frozen=True)
class Way:
    """A way of asking a proxy (by its URL), and what is counted of the batches it then sends."""

    name: str
    ask: Callable[[str], None]
    count: Callable[[list[list[str]]], int]


def main() -> int:
    """Measure both."""
    argparse.ArgumentParser(prog="bench.peers", description=__doc__).parse_args()
    try:
        servers.need("wrk")
    except servers.Missing as missing:
        raise SystemExit(f"bench: {missing}") from None
    began = time.monotonic()
    with ExitStack() as stack:
        # Each has an upstream of its own, so that what is sent there is counted apart.
        upstreams = [
            first_line(stack.enter_context(started("bench.peers.upstream", "--delay", str(DELAY))))
            for _ in PEERS
        ]
        urls = [
            stack.enter_context(servers.proxy(upstreams[0])).url,
            stack.enter_context(litellm.proxy(upstreams[1])),
        ]
        verdicts = [mixed.compare(url) for url in urls]
        both = list(zip(urls, upstreams, strict=True))
        rows = [rate(urls, 1), rate(urls, 32), *(sent(way, both) for way in WAYS)]
    setting = f"{machine()}, LiteLLM {litellm.version()}, {time.monotonic() - began:.0f} s in all"
    lines = table(rows, verdicts)
    print("\n".join([*lines, setting]))
    write(lines, rows, verdicts, setting)
    return 1 if any(verdict.problem for all_ in verdicts[0].values() for verdict in all_) else 0


def rate(urls: list[str], count: int) -> Row:
    """Compare requests per second of cached texts."""
    texts = [f"cached text {number}" for number in range(count)]
    for url in urls:
        mixed.ask(url, texts)
        if problem := mixed.judge(texts, mixed.ask(url, texts)).problem:
            raise SystemExit(f"bench: {url}: cached texts come back wrong: {problem}")
    body = [orjson.dumps({"model": "bench", "input": texts})]
    ours, theirs = (url + "/v1/embeddings" for url in urls)
    _, *rates = side_by_side(lambda: wrk.run(ours, body).rate, lambda: wrk.run(theirs, body).rate)
    return Row(f"requests/s, {count} cached text{'s' * (count > 1)}, 16 connections", *rates)


def sent(way: Way, both: list[tuple[str, str]]) -> Row:
    """Count what each proxy sends to its upstream when it is asked in one way (URLs of both)."""
    counted = []
    for url, upstream in both:
        servers.fetch(upstream + "/batches")
        way.ask(url)
        batches = orjson.loads(servers.fetch(upstream + "/batches")[1])
        counted.append(float(way.count(batches)))
    return Row(way.name, *counted)


def identical(url: str) -> None:
    """Ask for one new text IDENTICAL times at the same moment."""
    body = orjson.dumps({"model": "bench", "input": ["a text that all want"]})
    load.send(url + "/v1/embeddings", [body] * IDENTICAL, IDENTICAL)


def duplicates(url: str) -> None:
    """Ask for one new text COPIES times in one batch."""
    mixed.ask(url, ["a text that comes again"] * COPIES)


def other_user(url: str) -> None:
    """Ask for one new text as two users."""
    for user in ("one", "two"):
        mixed.ask(url, ["a text of two users"], user=user)


def other_encoding(url: str) -> None:
    """Ask for one new text in both encodings."""
    for encoding in ("float", "base64"):
        mixed.ask(url, ["a text in two encodings"], encoding_format=encoding)


def texts_of(batches: list[list[str]]) -> int:
    """Count the texts of batches."""
    return sum(map(len, batches))


WAYS = (
    Way(f"upstream calls for {IDENTICAL} requests of one new text at once", identical, len),
    Way(f"texts sent upstream for a batch of one new text {COPIES} times", duplicates, texts_of),
    Way("texts sent upstream for a text that two users want", other_user, texts_of),
    Way("texts sent upstream for a text as floats and as base64", other_encoding, texts_of),
)


def table(rows: list[Row], verdicts: list[Verdicts]) -> list[str]:
    """Write both tables in Markdown."""
    lines = [f"| | {' | '.join(PEERS)} | ratio |", "|---|---|---|---|"]
    lines += [
        f"| {row.name} | {row.ours:.0f} | {row.theirs:.0f} | {row.ratio:.3g} |" for row in rows
    ]
    lines += ["", f"| batches of | {' | '.join(PEERS)} |", "|---|---|---|"]
    for shape in mixed.SHAPES:
        cells = " | ".join(mixed.summary(of_one[shape]) for of_one in verdicts)
        lines.append(f"| {shape} | {cells} |")
    return lines


def write(lines: list[str], rows: list[Row], verdicts: list[Verdicts], setting: str) -> None:
    """Write the tables, and the same for programs."""
    RESULTS.mkdir(exist_ok=True)
    head = f"`make bench-peers`: {setting}.\n\n{__doc__.split(chr(10) * 2)[1]}\n"
    (RESULTS / "peers.md").write_text("\n".join([head, *lines]) + "\n")
    problems = {
        peer: {shape: [verdict.problem for verdict in all_] for shape, all_ in of_one.items()}
        for peer, of_one in zip(PEERS, verdicts, strict=True)
    }
    entries = {"figures": [asdict(row) for row in rows], "problems": problems}
    (RESULTS / "peers.json").write_text(json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
