"""Where the microseconds of a request go: ``python -m bench.stages`` prints tables in Markdown.

One worker, 1024-d vectors, 16 connections, stand-ins for TEI and Qdrant. CPU time per request is
the kernel's accounting of the worker; it is shared out by looks at the running worker
(``bench.sampler``), each of which counts for the innermost function that a stage names.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import load, sampler, servers, wrk
from bench.__main__ import machine
from tests.stand_ins.process import first_line, started

#: A stage's name, and the functions that belong to it: a part of a file's path, and the function's
#: name, or "" for all of that file. The first that fits a function counts.
STAGES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("the loop in C, up to the call: epoll, read", (("", ">data_received"),)),
    (
        "parse the body",
        (("routes/tei.py", "parse"), ("routes/tei.py", "decode"), ("routes/tei.py", "items_of")),
    ),
    (
        "keys",
        (
            ("proxy_app/entries/keys.py", ""),
            ("embedding/service.py", "_keys"),
            ("embedding/request.py", "effective"),
        ),
    ),
    ("L1", (("proxy_app/cache/memory.py", ""),)),
    ("check vectors", (("proxy_app/entries/vectors.py", ""),)),
    (
        "write-behind",
        (
            ("proxy_app/cache/writes.py", ""),
            ("cache/store.py", "write"),
            ("cache/qdrant.py", "upsert"),
            ("cache/qdrant.py", "payload"),
        ),
    ),
    (
        "store: HTTP client",
        (("net/exchange.py", ""), ("cache/qdrant.py", "_call"), ("cache/qdrant.py", "_once")),
    ),
    (
        "store: ask, cut the reply",
        (("cache/store.py", ""), ("cache/lookups.py", ""), ("cache/qdrant.py", "")),
    ),
    ("upstream: HTTP client", (("upstream/connections.py", ""),)),
    (
        "upstream: batches, trials, permits",
        (
            ("upstream/client.py", ""),
            ("upstream/batches.py", ""),
            ("upstream/trials.py", ""),
            ("upstream/suspects.py", ""),
            ("embedding/permits.py", ""),
        ),
    ),
    (
        "flights and rules",
        (
            ("proxy_app/embedding/flights.py", ""),
            ("proxy_app/embedding/sender.py", ""),
            ("proxy_app/embedding/service.py", ""),
        ),
    ),
    (
        "reply: head, join, write",
        (
            ("proxy_app/http/reply.py", ""),
            ("routes/embeddings.py", "header_lines"),
            ("routes/tei.py", "write"),
        ),
    ),
    (
        "head: is it for the lane?",
        (("proxy_app/http/lane.py", ""), ("proxy_app/http/heads.py", "")),
    ),
    (
        "counting, log",
        (
            ("routes/account.py", ""),
            ("telemetry/metrics.py", ""),
            ("telemetry/tallies.py", ""),
            ("telemetry/logs.py", ""),
        ),
    ),
    ("handler", (("proxy_app/", ""),)),
    ("aiohttp's server", (("aiohttp/web_", ""),)),
)
#: What counts where nothing above does: most of it is beneath a stage.
CLIENT = "aiohttp's client, in callbacks and tasks"
OTHER = "asyncio, the rest"
NAMES = [*(name for name, _ in STAGES), CLIENT, OTHER]
#: The frames below all work, which say nothing about it.
ROOTS = (
    "aiohttp/worker.py",
    "proxy_app/server.py",
    "proxy_app/commands/cli.py",
    "proxy_app/__main__.py",
)


@dataclass(frozen=True)
class Case:
    """What is asked: so many texts a request, cached there or nowhere."""

    name: str
    level: str
    inputs: int


CASES = (
    Case("L1 hit, 1 text", "l1", 1),
    Case("L1 hit, 32 texts", "l1", 32),
    Case("L2 hit, 1 text", "l2", 1),
    Case("L2 hit, 32 texts", "l2", 32),
    Case("miss, 1 text", "miss", 1),
    Case("miss, 32 texts", "miss", 32),
)


def main() -> None:
    """Measure every case, and print a column for each."""
    argparse.ArgumentParser(prog="bench.stages", description=__doc__).parse_args()
    servers.need("wrk")
    columns = [measure(case) for case in CASES]
    print(f"{machine()}; µs of the worker's CPU time per request\n")
    print(f"| stage | {' | '.join(case.name for case in CASES)} |")
    print("|---|" + "---|" * len(CASES))
    for stage in NAMES:
        cells = [f"{column[stage]:.1f}" if column[stage] else "" for column in columns]
        print(f"| {stage} | {' | '.join(cells)} |")
    print(f"| all | {' | '.join(f'**{sum(column.values()):.0f}**' for column in columns)} |")
    cells = [f"{sum(c.values()) / case.inputs:.1f}" for case, c in zip(CASES, columns, strict=True)]
    print(f"| per text | {' | '.join(cells)} |")


def measure(case: Case) -> dict[str, float]:
    """Return the microseconds of each stage."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="embedrack-bench-"))
        file = Path(folder, "stacks")
        [upstream] = stack.enter_context(servers.instances())
        store = ""
        if case.level != "l1":
            store = first_line(stack.enter_context(started("tests.stand_ins.qdrant")))
        proxy = stack.enter_context(
            servers.proxy(
                upstream,
                store,
                program=("bench.sampler", str(file)),
                memory=0 if case.level == "l2" else 512,
            )
        )
        send = prepared(case, proxy.url + "/embed")
        cpu = proxy.cpu()
        os.kill(proxy.worker, sampler.START)
        requests = send()
        os.kill(proxy.worker, sampler.STOP)
        each = (proxy.cpu() - cpu) / requests * 1e6
        while not file.exists():
            time.sleep(0.05)
        shares = shared_out(file.read_text())
    return {name: each * shares.get(name, 0.0) for name in NAMES}


def prepared(case: Case, url: str) -> Callable[[], int]:
    """Cache what is to be cached; returns what posts the load and counts its requests."""
    if case.level == "miss":
        load.send(url, load.bodies("early", 50, case.inputs))
        new = load.bodies("new", 8000 if case.inputs == 1 else 1200, case.inputs)

        def send() -> int:
            load.send(url, new, expect="miss")
            time.sleep(1.5)  # what is written behind belongs to it
            return len(new)

        return send
    known = load.bodies("known", 32, case.inputs)
    load.send(url, known)
    time.sleep(2)  # written
    load.send(url, known, expect="hit")
    return lambda: wrk.run(url, known, 6).requests


def shared_out(stacks: str) -> dict[str, float]:
    """Return the share of each stage of a sampler's stacks."""
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        functions, count = json.loads(line)
        counts[stage_of([(path, name) for path, name in functions])] += count
    return {stage: count / counts.total() for stage, count in counts.items()}


def stage_of(functions: list[tuple[str, str]]) -> str:
    """Return the stage of a stack (innermost function first)."""
    beneath = OTHER
    for path, name in functions:
        if path.endswith(ROOTS):
            break
        for stage, members in STAGES:
            if any(is_member(path, name, *member) for member in members):
                return stage
        if "aiohttp/client" in path:
            beneath = CLIENT
    return beneath


def is_member(path: str, name: str, place: str, function: str) -> bool:
    """Tell whether a function is one of a stage's."""
    if function.startswith(">"):
        return name == function
    return place in path and (not function or name.lstrip(">") == function)


if __name__ == "__main__":
    main()
