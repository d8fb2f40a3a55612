"""Requests that must not repeat: bodies made beforehand, sent over some connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import aiohttp
import orjson


def bodies(word: str, requests: int, inputs: int) -> list[bytes]:
    """Make requests of texts that no other call with another word makes."""
    return [
        orjson.dumps({"inputs": [f"{word} {number} {part}" for part in range(inputs)]})
        for number in range(requests)
    ]


def send(url: str, requests: Iterable[bytes], connections: int = 16, expect: str = "") -> float:
    """Post all of them; returns the seconds. Any reply but a good one ends the benchmark.

    ``expect`` is how ``X-Cache`` must begin.
    """
    return asyncio.run(_send(url, iter(requests), connections, expect))


async def _send(url: str, left: Iterable[bytes], connections: int, expect: str) -> float:
    connector = aiohttp.TCPConnector(limit=connections)
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def client() -> None:
            for body in left:
                async with session.post(url, data=body) as reply:
                    content = await reply.read()
                    if reply.status != 200:
                        raise SystemExit(f"bench: {url}: {reply.status} {content[:200]!r}")
                    if not reply.headers.get("X-Cache", "").startswith(expect):
                        raise SystemExit(f"bench: {url}: {reply.headers.get('X-Cache')}")

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(connections)))
        return time.perf_counter() - started
