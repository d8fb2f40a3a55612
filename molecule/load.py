"""Keeps sending to an endpoint while a scenario changes the host; a failed request fails it.

`load.py URL REPORT [--connections N] [--rate R]` sends until SIGTERM, then writes REPORT (JSON) and
exits with 1 if anything failed. Nothing is sent twice: a refused or broken connection, a time-out,
a status other than 200, a short list or another vector than before is a failure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter, deque
from pathlib import Path

import aiohttp

SIZES = (1, 1, 1, 3, 8, 40)
#: How far two misses of one text may lie apart, number by number (TEI's batching).
CLOSE = 1e-5


class Load:
    """The clients, and what they saw."""

    def __init__(self, url: str, connections: int, rate: float) -> None:
        self.url = url.rstrip("/") + "/embed"
        self.pause = connections / rate if rate else 0.0
        self.stop = asyncio.Event()
        self.connections = connections
        self.requests = 0
        self.inputs = 0
        self.kinds: Counter[str] = Counter()
        self.failures: list[dict[str, object]] = []
        self.cache: Counter[str] = Counter()
        self.times: deque[float] = deque(maxlen=200_000)
        self.seen: dict[str, list[float]] = {}
        self.began = time.time()

    async def run(self) -> None:
        """Send until told to stop; what is on its way then is waited for."""
        clients = [self.client(number) for number in range(self.connections)]
        await asyncio.gather(*clients, self.tell())

    async def client(self, number: int) -> None:
        """Send one request after another over one kept connection."""
        chance = random.Random(number)
        connector = aiohttp.TCPConnector(limit=1, keepalive_timeout=300)
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.sleep(self.pause * chance.random())
            while not self.stop.is_set():
                await self.send(session, self.texts(chance))
                if self.pause:
                    await asyncio.sleep(self.pause * chance.uniform(0.5, 1.5))

    def texts(self, chance: random.Random) -> list[str]:
        """Draw a batch: about half of it was sent before, now and then a text twice."""
        known = list(self.seen) if len(self.seen) < 200 else list(self.seen)[:200]
        batch = [
            chance.choice(known)
            if known and chance.random() < 0.5
            else f"text {chance.getrandbits(48)} of a load"
            for _ in range(chance.choice(SIZES))
        ]
        return batch + batch[:1] if chance.random() < 0.1 else batch

    async def send(self, session: aiohttp.ClientSession, texts: list[str]) -> None:
        """Send one request and judge its reply."""
        self.requests += 1
        self.inputs += len(texts)
        began = time.perf_counter()
        try:
            async with session.post(self.url, json={"inputs": texts}) as reply:
                body = await reply.read()
                if reply.status != 200:
                    self.fail(f"status {reply.status}", body[:200].decode("utf-8", "replace"))
                    return
                self.cache[reply.headers.get("X-Cache", "none").split(";")[0]] += 1
                self.judge(texts, json.loads(body))
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            self.fail(type(error).__name__, str(error)[:200])
        self.times.append(time.perf_counter() - began)

    def judge(self, texts: list[str], vectors: list[list[float]]) -> None:
        """Compare a reply with what the same texts got before."""
        if len(vectors) != len(texts):
            self.fail("short list", f"{len(vectors)} vectors for {len(texts)} texts")
            return
        for text, vector in zip(texts, vectors, strict=True):
            former = self.seen.get(text)
            if former is None:
                if len(self.seen) < 2000:
                    self.seen[text] = vector
            elif len(vector) != len(former) or any(
                abs(one - other) > CLOSE for one, other in zip(vector, former, strict=True)
            ):
                self.fail("wrong vector", text)
                return

    def fail(self, kind: str, told: str) -> None:
        """Count a failure; the first ones are kept whole."""
        self.kinds[kind] += 1
        if len(self.failures) < 20:
            at = round(time.time() - self.began, 2)
            self.failures.append({"at": at, "kind": kind, "told": told})

    async def tell(self) -> None:
        """Show how it goes, every ten seconds."""
        while not self.stop.is_set():
            print(self.line(), file=sys.stderr, flush=True)
            try:
                await asyncio.wait_for(self.stop.wait(), 10)
            except asyncio.TimeoutError:
                continue

    def line(self) -> str:
        """Say in a line what happened so far."""
        failed = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items()) or "none"
        return f"load: {self.requests} requests, {self.inputs} inputs, failed: {failed}"

    def report(self) -> dict[str, object]:
        """Describe the whole run."""
        times = sorted(self.times) or [0.0]
        return {
            "requests": self.requests,
            "inputs": self.inputs,
            "failed": sum(self.kinds.values()),
            "kinds": dict(self.kinds),
            "cache": dict(self.cache),
            "seconds": round(time.time() - self.began, 1),
            "p50_ms": round(times[len(times) // 2] * 1000, 1),
            "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 1),
            "max_ms": round(times[-1] * 1000, 1),
            "failures": self.failures,
        }


async def main() -> int:
    """Run until SIGTERM; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("report", type=Path)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second, all together")
    options = parser.parse_args()
    load = Load(options.url, options.connections, options.rate)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, load.stop.set)
    await load.run()
    print(load.line(), file=sys.stderr)
    options.report.write_text(json.dumps(load.report(), indent=2) + "\n")
    return 1 if load.kinds else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
