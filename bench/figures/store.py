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
import numpy as np
import orjson

from bench.figure import Figure, side_by_side
from proxy_app.entries.keys import point_id
from tests.stand_ins.process import first_line, started

#: Of fewer numbers, 10,000 vectors stay in the processor's cache, and the ratio is mostly of that.
DIMENSION = 512
SMALL, LARGE = 10_000, 1_000_000
#: Different vectors; entries beyond share them, since how long their text is costs, not which.
VECTORS = 1_000
#: Points in an upsert, and upserts at once.
WRITTEN, WRITERS = 250, 2
#: Points in a look-up, different look-ups, look-ups at once, and seconds of them without a break.
ASKED, BODIES, CLIENTS, SECONDS = 32, 500, 4, 0.5
#: Turns of both stores: neighbours of this machine slow it by a third for a second or two.
ROUNDS = 24
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
            few_bodies, many_bodies = bodies(SMALL), bodies(LARGE)
            ratio, many, few = side_by_side(
                lambda: asyncio.run(look_up(large, many_bodies)),
                lambda: asyncio.run(look_up(small, few_bodies)),
                ROUNDS,
            )
    finally:
        shutil.rmtree(folder)
    name = "L2 look-ups/s at 1,000,000 entries over 10,000 (embedded store)"
    yield Figure(name, ratio, 0.9, f"{many:.0f}/s against {few:.0f}/s, filled in {filled:.0f} s")


def identifier(number: int) -> str:
    """Return the id of an entry, spread as a hash's."""
    return point_id(random.Random(number).randbytes(16))


async def fill(url: str, count: int) -> None:
    """Write ``count`` entries with vectors as long, in text too, as an embedder's."""
    vectors = np.random.default_rng(1).standard_normal((VECTORS, DIMENSION), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [
        orjson.Fragment(orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY))
        for vector in vectors
    ]
    starts = iter(range(0, count, WRITTEN))
    async with aiohttp.ClientSession(url) as session:
        async with session.put("/collections/bench", json=SETTINGS) as reply:
            assert reply.status == 200, await reply.text()

        async def writer() -> None:
            for start in starts:
                points = [
                    {"id": identifier(n), "vector": texts[n % VECTORS], "payload": {"t": n}}
                    for n in range(start, min(count, start + WRITTEN))
                ]
                body = orjson.dumps({"points": points})
                async with session.put("/collections/bench/points?wait=true", data=body) as reply:
                    assert reply.status == 200, await reply.text()

        await asyncio.gather(*(writer() for _ in range(WRITERS)))
        async with session.get("/collections/bench") as reply:
            held = (await reply.json())["result"]["points_count"]
            assert held == count, f"{held} of {count} entries"


def bodies(count: int) -> list[bytes]:
    """Return requests that look up random entries of a store that has ``count``."""
    draw = random.Random(1)
    return [
        orjson.dumps(
            {
                "ids": [identifier(draw.randrange(count)) for _ in range(ASKED)],
                "with_vector": True,
                "with_payload": True,
            }
        )
        for _ in range(BODIES)
    ]


async def look_up(url: str, asked: list[bytes]) -> float:
    """Return how many look-ups, all of them in turn and again, the store answers in a second."""
    done = 0
    async with aiohttp.ClientSession(url) as session:
        began = time.perf_counter()

        async def client() -> None:
            nonlocal done
            while time.perf_counter() < began + SECONDS:
                body = asked[done % len(asked)]
                done += 1
                async with session.post("/collections/bench/points", data=body) as reply:
                    found = orjson.loads(await reply.read())["result"]
                    assert len(found) >= ASKED - 2, f"{len(found)} of {ASKED}"

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return done / (time.perf_counter() - began)


if __name__ == "__main__":
    for figure in measure():
        print(figure)
