"""CPU time of the worker, by the kernel's accounting: for hits in L1 and L2, and for misses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from bench import load, servers
from bench.figure import Figure
from tests.stand_ins.process import first_line, started

#: What is written behind belongs to a miss, so it is waited for.
WRITTEN = 1.5


@dataclass(frozen=True)
class Case:
    """One kind of load: how many inputs a request has, how many requests, what they find."""

    name: str
    inputs: int
    requests: int
    expect: str
    memory: int = 512
    limit: float = 0.0
    per: str = "request"


CASES = (
    Case("L1 hit, 1 text", 1, 8000, "hit"),
    Case("L1 hit, 32 texts", 32, 1600, "hit"),
    Case("L2 hits of 1 text: proxy CPU per request", 1, 4000, "hit", 0, 250),
    Case("L2 hits in batches of 32: proxy CPU per vector", 32, 800, "hit", 0, 45, "vector"),
    Case("miss, 1 text", 1, 3000, "miss"),
    Case("misses in batches of 32: proxy CPU per vector", 32, 800, "miss", 512, 90, "vector"),
)


def measure() -> Iterator[Figure]:
    """Measure the cases that have a limit."""
    for case in CASES:
        if case.limit:
            request, vector, rate = run(case)
            value = request if case.per == "request" else vector
            told = f"{rate:.0f} requests/s"
            yield Figure(case.name, value * 1e6, case.limit, told, "µs", at_most=True)


def run(case: Case) -> tuple[float, float, float]:
    """Return CPU seconds per request and per vector, and the requests per second."""
    with ExitStack() as stack:
        [upstream] = stack.enter_context(servers.instances())
        store = first_line(stack.enter_context(started("tests.stand_ins.qdrant")))
        proxy = stack.enter_context(servers.proxy(upstream, store, memory=case.memory))
        url = proxy.url + "/embed"
        known = load.bodies("known", 64, case.inputs)
        load.send(url, known)
        time.sleep(WRITTEN)
        if case.expect == "hit":
            sent = known * (case.requests // len(known))
        else:
            sent = load.bodies("new", case.requests, case.inputs)
        cpu = proxy.cpu()
        seconds = load.send(url, sent, expect=case.expect)
        if case.expect == "miss":
            time.sleep(WRITTEN)
        spent = proxy.cpu() - cpu
        return spent / len(sent), spent / len(sent) / case.inputs, len(sent) / seconds


def table() -> None:
    """Print every case: the worker's CPU time per request and per vector."""
    print(f"{'1024-d, one worker, 16 connections':48} {'CPU/request':>12} {'CPU/vector':>11}")
    for case in CASES:
        request, vector, _ = run(case)
        print(f"{case.name:48} {request * 1e6:9.0f} µs {vector * 1e6:8.1f} µs", flush=True)


if __name__ == "__main__":
    table()
