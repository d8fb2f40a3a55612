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
#: How often each load is sent.
ROUNDS = 4


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

    @property
    def per_request(self) -> int:
        """How many of what is counted a request has."""
        return self.inputs if self.per == "vector" else 1


CASES = (
    Case("L1 hit, 1 text", 1, 8000, "hit"),
    Case("L1 hit, 32 texts", 32, 1600, "hit"),
    Case("L2 hits of 1 text: proxy CPU per request", 1, 4000, "hit", 0, 250),
    Case("L2 hits in batches of 32: proxy CPU per vector", 32, 800, "hit", 0, 45, "vector"),
    Case("misses of 1 text: proxy CPU per request", 1, 3000, "miss", 512, 300),
    Case("misses in batches of 32: proxy CPU per vector", 32, 800, "miss", 512, 90, "vector"),
)


def measure() -> Iterator[Figure]:
    """Measure the cases that have a limit."""
    for case in CASES:
        if case.limit:
            spent = [each / case.per_request for each in run(case)]
            made_of = f"the least of {ROUNDS} rounds; the most was {max(spent) * 1e6:.3g} µs"
            yield Figure(case.name, min(spent) * 1e6, case.limit, made_of, "µs", at_most=True)


def run(case: Case) -> list[float]:
    """Return the CPU seconds per request of each round.

    They differ by half on a virtual machine whose neighbours are busy; the least of them is what
    the proxy itself takes.
    """
    with ExitStack() as stack:
        [upstream] = stack.enter_context(servers.instances())
        store = first_line(stack.enter_context(started("tests.stand_ins.qdrant")))
        proxy = stack.enter_context(servers.proxy(upstream, store, memory=case.memory))
        url = proxy.url + "/embed"
        known = load.bodies("known", 50, case.inputs)
        load.send(url, known)
        time.sleep(WRITTEN)
        spent = []
        for round_ in range(ROUNDS):
            count = case.requests // ROUNDS
            if case.expect == "hit":
                sent = known * (count // len(known))
            else:
                sent = load.bodies(f"new in {round_}", count, case.inputs)
            cpu = proxy.cpu()
            load.send(url, sent, expect=case.expect)
            if case.expect == "miss":
                time.sleep(WRITTEN)
            spent.append((proxy.cpu() - cpu) / len(sent))
        return spent


def table() -> None:
    """Print every case: the worker's CPU time per request and per vector."""
    print(f"{'1024-d, one worker, 16 connections':48} {'CPU/request':>12} {'CPU/vector':>11}")
    for case in CASES:
        least = min(run(case)) * 1e6
        print(f"{case.name:48} {least:9.0f} µs {least / case.inputs:8.1f} µs", flush=True)


if __name__ == "__main__":
    table()
