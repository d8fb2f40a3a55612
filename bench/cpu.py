"""CPU per request of one proxy worker: ``python -m bench.cpu``.

Hits in L1 (1 and 32 texts), hits in L2, and misses, with 1024-d vectors and stand-ins in processes
of their own that answer at once. What is printed is the worker's own CPU time (user and system, out
of the kernel's accounting), divided by the requests and by the inputs that it answered.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from tests.stand_ins.process import first_line, started

CONNECTIONS = 16


@dataclass(frozen=True)
class Case:
    """One kind of load: a name, the inputs per request, and the texts of request ``i``."""

    name: str
    inputs: int
    texts: Callable[[int], list[str]]
    warm: bool
    expect: str
    memory: str = "512"


def repeated(inputs: int) -> Callable[[int], list[str]]:
    """Texts of 64 requests, over and over."""
    return lambda i: [f"text {i % 64} {j}" for j in range(inputs)]


def fresh(inputs: int, word: str) -> Callable[[int], list[str]]:
    """Texts that were never sent."""
    return lambda i: [f"{word} {i} {j}" for j in range(inputs)]


CASES = (
    Case("L1 hit, 1 text", 1, repeated(1), True, "hit"),
    Case("L1 hit, 32 texts", 32, repeated(32), True, "hit"),
    Case("L2 hit, 1 text", 1, repeated(1), True, "hit", memory="0"),
    Case("L2 hit, 32 texts", 32, repeated(32), True, "hit", memory="0"),
    Case("miss, 1 text", 1, fresh(1, "one"), False, "miss"),
    Case("miss, 32 texts", 32, fresh(32, "many"), False, "miss"),
)


def worker_of(master: int) -> int:
    """Return the process id of gunicorn's only worker."""
    return int(Path(f"/proc/{master}/task/{master}/children").read_text().split()[0])


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(url: str, case: Case, first: int, count: int) -> None:
    """Send ``count`` requests over 16 connections and check what each says of the cache."""
    bodies = iter([orjson.dumps({"inputs": case.texts(first + i)}) for i in range(count)])
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def client() -> None:
            for body in bodies:
                async with session.post(url + "/embed", data=body) as reply:
                    await reply.read()
                    told = reply.headers.get("X-Cache", "")
                    if reply.status != 200 or (count > 64 and not told.startswith(case.expect)):
                        raise SystemExit(f"{case.name}: {reply.status} {told}")

        await asyncio.gather(*(client() for _ in range(CONNECTIONS)))


async def until_ready(url: str) -> None:
    """Wait until upstream and store answer."""
    async with aiohttp.ClientSession() as session:
        for _ in range(200):
            try:
                async with session.get(url + "/readyz") as reply:
                    if (await reply.json())["store"] == "ok":
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.1)
    raise SystemExit("the proxy did not become ready")


async def measure(case: Case, requests: int, port: int) -> tuple[float, float]:
    """Return CPU seconds and requests per second of the case's worker."""
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        tei = stack.enter_context(started("tests.stand_ins.tei", "--dimension", "1024"))
        qdrant = stack.enter_context(started("tests.stand_ins.qdrant"))
        arguments = ("--upstream", first_line(tei), "--qdrant", first_line(qdrant))
        master = stack.enter_context(
            started(
                "proxy_app",
                "serve",
                *arguments,
                *("--bind", "127.0.0.1", "--port", str(port), "--workers", "1"),
                EMBEDRACK_MEMORY=case.memory,
                EMBEDRACK_STORE_TIMEOUT="5",
                EMBEDRACK_LOG_LEVEL="warning",
            )
        )
        await until_ready(url)
        await load(url, case, 0, 64)
        await asyncio.sleep(1.5)  # what is written behind reaches the store
        worker = worker_of(master.pid)
        cpu, clock = cpu_seconds(worker), time.perf_counter()
        await load(url, case, 1000 if not case.warm else 0, requests)
        rate = requests / (time.perf_counter() - clock)
        if not case.warm:
            await asyncio.sleep(1.5)  # the write-behind belongs to a miss
        return cpu_seconds(worker) - cpu, rate


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds-of-work", type=float, default=1.0, help="scales the requests")
    parser.add_argument("--port", type=int, default=18099)
    options = parser.parse_args()
    print(
        f"{'1024-d, one worker, 16 connections':36} {'requests/s':>11} {'CPU/request':>12} "
        f"{'CPU/input':>10}"
    )
    for case in CASES:
        requests = int(options.seconds_of_work * (6000 if case.inputs == 1 else 800))
        cpu, rate = asyncio.run(measure(case, requests, options.port))
        request, each = cpu / requests * 1e6, cpu / requests / case.inputs * 1e6
        print(f"{case.name:36} {rate:11.0f} {request:9.0f} µs {each:7.1f} µs", flush=True)


if __name__ == "__main__":
    # /proc has the CPU time of another process; nothing else here needs Linux.
    if not Path("/proc/self/stat").exists():
        raise SystemExit("bench.cpu reads CPU times from /proc, which this system lacks")
    main()
