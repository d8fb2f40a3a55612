"""Stand-ins for TEI instances that cost next to nothing: one ready vector, one batch at a time.

``python -m bench.instance --count 4 --delay 0.02`` listens on as many ports and prints their URLs;
``GET /calls`` tells how many batches all of them were sent.
"""

from __future__ import annotations

import argparse
import asyncio

import orjson
from aiohttp import web

from tests.stand_ins.tei import StandInTei, vector_of


class Instances:
    """All of them, in one process; ``delay`` is the seconds that a batch takes."""

    def __init__(self, delay: float, dimension: int) -> None:
        self._delay = delay
        self._vector = vector_of("bench", dimension, odd=0)
        self._info = orjson.dumps(StandInTei(dimension).info)
        self.calls = 0

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
            return reply(b"[" + b",".join([self._vector] * count) + b"]")

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


def reply(body: bytes) -> web.Response:
    """Answer with JSON."""
    return web.Response(body=body, content_type="application/json")


async def main() -> None:
    """Listen until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--dimension", type=int, default=1024)
    options = parser.parse_args()
    instances = Instances(options.delay, options.dimension)
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
