"""Short hits beside long misses on one worker: what the ones wait for the others."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import orjson

from bench import servers, wrk
from bench.figure import Figure, side_by_side
from bench.figures.misses import BATCH, send_new


def measure() -> Iterator[Figure]:
    """Compare the 99th percentile of 1-text hits with and without 1024-text misses."""
    with (
        servers.instances(4, BATCH) as urls,
        servers.balancer(urls) as balancer,
        servers.proxy(balancer, upstream_instances=4) as proxy,
    ):
        servers.set_apart(proxy.worker)
        url = proxy.url + "/embed"
        hit = [orjson.dumps({"inputs": "a cached text"})]
        servers.fetch(url, orjson.loads(hit[0]))

        def beside() -> float:
            with misses(url):
                return wrk.run(url, hit, 3).p99

        ratio, with_them, without = side_by_side(beside, lambda: wrk.run(url, hit, 3).p99)
    name = "p99 of 1-text hits while 1024-text misses run, over p99 without"
    made_of = f"{with_them * 1e3:.1f} ms against {without * 1e3:.1f} ms"
    yield Figure(name, ratio, 3, made_of, at_most=True)


@contextmanager
def misses(url: str) -> Iterator[None]:
    """Send requests of 1024 new texts, one after the other, until the body ends.

    At a lower priority than wrk has, whose core it shares.
    """
    over = threading.Event()

    def send() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while not over.is_set():
            send_new(url)

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        try:
            yield
        finally:
            over.set()
        sending.result()  # raises what went wrong
