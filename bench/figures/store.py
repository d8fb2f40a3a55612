"""Look-ups in the embedded store with a million entries, beside ten thousand."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import orjson

from bench.figure import Figure, side_by_side
from proxy_app.keys import point_id
from tests.stand_ins.process import first_line, started

DIMENSION = 32
VECTOR = [0.125] * DIMENSION
SMALL, LARGE = 10_000, 1_000_000
#: Points in an upsert, and in a look-up.
WRITTEN, ASKED = 2_000, 32
SETTINGS = {
    "vectors": {"size": DIMENSION, "distance": "Dot", "on_disk": True},
    "hnsw_config": {"m": 0, "payload_m": 0},
    "optimizers_config": {"indexing_threshold": 0},
    "on_disk_payload": True,
}


def measure() -> Iterator[Figure]:
    """Fill two stores and look entries up in both, side by side."""
    folder = Path(tempfile.mkdtemp(prefix="embedrack-bench-"))
    try:
        with (
            started("local_stack.qdrant", "--data-dir", str(folder / "s"), "--port", "0") as one,
            started("local_stack.qdrant", "--data-dir", str(folder / "l"), "--port", "0") as two,
        ):
            small, large = (orjson.loads(first_line(process))["url"] for process in (one, two))
            began = time.perf_counter()
            asyncio.run(fill(small, SMALL))
            asyncio.run(fill(large, LARGE))
            filled = time.perf_counter() - began
            ratio, many, few = side_by_side(
                lambda: asyncio.run(look_up(large, LARGE)),
                lambda: asyncio.run(look_up(small, SMALL)),
            )
    finally:
        shutil.rmtree(folder)
    name = "L2 look-ups/s at 1,000,000 entries over 10,000 (embedded store)"
    yield Figure(name, ratio, 0.9, f"{many:.0f}/s against {few:.0f}/s, filled in {filled:.0f} s")


def identifier(number: int) -> str:
    """Return the id of an entry, spread as a hash's."""
    return point_id(random.Random(number).randbytes(16))


async def fill(url: str, count: int) -> None:
    """Write ``count`` entries, and wait until the store has put its segments in order."""
    async with aiohttp.ClientSession(url) as session:
        async with session.put("/collections/bench", json=SETTINGS) as reply:
            assert reply.status == 200, await reply.text()
        for start in range(0, count, WRITTEN):
            points = [
                {"id": identifier(n), "vector": VECTOR, "payload": {"t": n}}
                for n in range(start, min(count, start + WRITTEN))
            ]
            body = orjson.dumps({"points": points})
            async with session.put("/collections/bench/points?wait=true", data=body) as reply:
                assert reply.status == 200, await reply.text()
        async with session.get("/collections/bench") as reply:
            held = (await reply.json())["result"]["points_count"]
            assert held == count, f"{held} of {count} entries"


async def look_up(url: str, count: int, seconds: float = 3) -> float:
    """Return how many look-ups of 32 random entries the store answers in a second."""
    draw = random.Random(1)
    asked = 0
    connector = aiohttp.TCPConnector(limit=4)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        bodies = [
            orjson.dumps(
                {
                    "ids": [identifier(draw.randrange(count)) for _ in range(ASKED)],
                    "with_vector": True,
                    "with_payload": True,
                }
            )
            for _ in range(500)
        ]
        over = time.perf_counter() + seconds

        async def client() -> None:
            nonlocal asked
            while time.perf_counter() < over:
                body = bodies[asked % len(bodies)]
                asked += 1
                async with session.post("/collections/bench/points", data=body) as reply:
                    found = orjson.loads(await reply.read())["result"]
                    assert len(found) >= ASKED - 2, f"{len(found)} of {ASKED}"

        await asyncio.gather(*(client() for _ in range(4)))
    return asked / seconds


if __name__ == "__main__":
    for figure in measure():
        print(figure)
