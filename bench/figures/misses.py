"""Misses: what the proxy adds before instances that are the bottleneck, and what it spreads."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from bench import load, servers
from bench.figure import Figure, side_by_side

#: Seconds of an instance for a batch, as a small GPU takes for 32 short texts.
BATCH = 0.02
_words = itertools.count()


def measure() -> Iterator[Figure]:
    """Measure throughput, the spreading of one request, and the single flight."""
    yield throughput()
    yield spreading()
    yield single_flight()


def throughput() -> Figure:
    """Compare vectors per second through the proxy with the balancer alone, queue kept full."""
    with (
        servers.instances(2, BATCH) as urls,
        servers.balancer(urls) as balancer,
        servers.proxy(balancer, upstream_instances=2) as proxy,
    ):

        def rate(url: str) -> float:
            bodies = load.bodies(f"rate {next(_words)}", 300, 32)
            return len(bodies) * 32 / load.send(url, bodies)

        ratio, ours, theirs = side_by_side(
            lambda: rate(proxy.url + "/embed"), lambda: rate(balancer + "/embed")
        )
    name = "misses: vectors/s through the proxy over the balancer alone"
    return Figure(name, ratio, 0.97, f"{ours:.0f}/s against {theirs:.0f}/s")


def spreading() -> Figure:
    """Compare one request of 1024 new texts over 4 instances with the same over 1."""
    with (
        servers.instances(1, BATCH) as one,
        servers.instances(4, BATCH) as four,
        servers.balancer(one) as alone,
        servers.balancer(four) as together,
        servers.proxy(alone, upstream_instances=1) as first,
        servers.proxy(together, upstream_instances=4) as second,
    ):
        ratio, slow, fast = side_by_side(
            lambda: send_new(first.url + "/embed"),
            lambda: send_new(second.url + "/embed"),
            rounds=5,
        )
    name = "one request of 1024 new texts: 4 instances over 1"
    return Figure(name, ratio, 3.5, f"{slow * 1e3:.0f} ms against {fast * 1e3:.0f} ms")


def single_flight() -> Figure:
    """Count the upstream calls of 100 identical misses at once."""
    with servers.instances(1, 0.3) as [upstream], servers.proxy(upstream) as proxy:
        time.sleep(1)
        before = int(servers.fetch(upstream + "/calls")[1])
        load.send(proxy.url + "/embed", load.bodies("the same", 1, 1) * 100, 100, "miss")
        calls = int(servers.fetch(upstream + "/calls")[1]) - before
    name = "100 identical misses at once on a worker: upstream calls"
    return Figure(name, calls, 1, "100 connections", at_most=True)


def send_new(url: str) -> float:
    """Post 1024 texts that nobody sent before; returns the seconds.

    http.client takes the reply's 13 MB in 4 ms, aiohttp's client in 18.
    """
    word = next(_words)
    inputs = [f"new {word} {number}" for number in range(1024)]
    began = time.perf_counter()
    headers, _ = servers.fetch(url, {"inputs": inputs})
    seconds = time.perf_counter() - began
    if not headers["X-Cache"].startswith("miss"):
        raise SystemExit(f"bench: {url}: {headers['X-Cache']}")
    return seconds
