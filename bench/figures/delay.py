"""A miss of one text at a time: how much later its reply comes than the upstream's own."""

from __future__ import annotations

import http.client
import itertools
import statistics
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import orjson

from bench import servers
from bench.figure import Figure

#: Rounds, and requests of each in a round.
ROUNDS, REQUESTS = 7, 25
_numbers = itertools.count()


def measure() -> Iterator[Figure]:
    """Ask the proxy and the upstream directly in turn, each with texts of its own."""
    with servers.instances() as [upstream], servers.proxy(upstream) as proxy:
        rounds = [[one_by_one(url) for url in (proxy.url, upstream)] for _ in range(ROUNDS + 1)][
            1:
        ]  # the first opens connections
    added = statistics.median(through - direct for through, direct in rounds)
    through, direct = (statistics.median(times) for times in zip(*rounds, strict=True))
    made_of = f"{through * 1e3:.2f} ms against {direct * 1e3:.2f} ms of the upstream directly"
    name = "the proxy's own delay on a miss of 1 text"
    yield Figure(name, added * 1e3, 0.6, made_of, "ms", at_most=True)


def one_by_one(url: str) -> float:
    """Return the median of the seconds that new texts take, over one kept connection."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    headers = {"Content-Type": "application/json"}
    took = []
    for _ in range(REQUESTS):
        body = orjson.dumps({"inputs": f"a new text, number {next(_numbers)}"})
        began = time.perf_counter()
        connection.request("POST", "/embed", body, headers)
        reply = connection.getresponse()
        reply.read()
        took.append(time.perf_counter() - began)
        if reply.status != 200:
            raise SystemExit(f"bench: {url}: {reply.status}")
    connection.close()
    return statistics.median(took)
