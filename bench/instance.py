"""Stand-ins for TEI instances that cost next to nothing: ready vectors, one batch at a time.

``python -m bench.instance --count 4 --delay 0.02`` listens on as many ports and prints their URLs;
``GET /calls`` tells how many batches all of them were sent. With ``--vectors 500`` the vectors are
normalised random numbers, in turn, which are as long as a real model's when they are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
from functools import lru_cache

import numpy as np
import orjson
from aiohttp import web

from local_stack.embedder.wire import json_floats
from tests.stand_ins.tei import StandInTei, vector_of


class Instances:
    """All of them, in one process; ``delay`` is the seconds that a batch takes."""

    def __init__(self, delay: float, dimension: int, vectors: int = 0) -> None:
        self._delay = delay
        ready = random_vectors(vectors, dimension) or [vector_of("bench", dimension, odd=0)]
        self._vectors = itertools.cycle(ready)
        # Where all have the same vector, replies of a size are the same.
        self._embeddings = self._next if vectors else lru_cache(self._next)
        self._info = orjson.dumps(StandInTei(dimension).info)
        self.calls = 0

    def _next(self, count: int) -> bytes:
        return b"[" + b",".join(itertools.islice(self._vectors, count)) + b"]"

    def app(self) -> web.Application:
        """Make one instance."""
        turn = asyncio.Lock()

        async def embed(request: web.Request) -> web.Response:
            inputs = orjson.loads(await request.read())["inputs"]
            count = len(inputs) if isinstance(inputs, list) else 1
            self.calls += inputs != "dimension"
            if self._delay:
                async with turn:
                    await asyncio.sleep(self._delay)
            return reply(self._embeddings(count))

        async def tokenize(request: web.Request) -> web.Response:
            count = len(orjson.loads(await request.read())["inputs"])
            return reply(b"[" + b",".join([b"[{},{},{},{}]"] * count) + b"]")

        async def info(_: web.Request) -> web.Response:
            return reply(self._info)

        async def health(_: web.Request) -> web.Response:
            return web.Response()

        async def calls(_: web.Request) -> web.Response:
            return reply(str(self.calls).encode())

        app = web.Application(client_max_size=4_000_000)
        app.router.add_post("/embed", embed)
        app.router.add_post("/tokenize", tokenize)
        app.router.add_get("/info", info)
        app.router.add_get("/health", health)
        app.router.add_get("/calls", calls)
        return app


def random_vectors(count: int, dimension: int) -> list[bytes]:
    """Return the raw JSON of normalised vectors of normally distributed numbers, as TEI prints."""
    numbers = np.random.default_rng(1).normal(size=(count, dimension))
    numbers /= np.linalg.norm(numbers, axis=1, keepdims=True)
    return [json_floats(row) for row in numbers.astype(np.float32)]


def reply(body: bytes) -> web.Response:
    """Answer with JSON."""
    return web.Response(body=body, content_type="application/json")


async def main() -> None:
    """Listen until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--vectors", type=int, default=0)
    options = parser.parse_args()
    instances = Instances(options.delay, options.dimension, options.vectors)
    urls = []
    for _ in range(options.count):
        runner = web.AppRunner(instances.app(), access_log=None, keepalive_timeout=600)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
    print(" ".join(urls), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
