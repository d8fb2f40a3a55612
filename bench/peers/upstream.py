"""The embedding server behind both proxies: a vector of its own for every text, in both dialects.

``python -m bench.peers.upstream --delay 0.3`` prints its URL; ``GET /batches`` gives the inputs of
every batch that it was sent since the last time.
"""

from __future__ import annotations

import argparse
import asyncio

import orjson
from aiohttp import web

from tests.stand_ins.process import serve
from tests.stand_ins.tei import StandInTei, tokens_of

DIMENSION = 1024


def texts_vector(server: StandInTei, text: str) -> bytes:
    """Return the raw JSON of the vector that the server has for a text, in either dialect."""
    return server.vector(text, {})


def stand_in() -> StandInTei:
    """Make the server; its vectors are the same whoever makes it."""
    return StandInTei(DIMENSION, odd=0)


def app(server: StandInTei) -> web.Application:
    """Add OpenAI's route to TEI's."""

    async def embeddings(request: web.Request) -> web.Response:
        given = orjson.loads(await request.read())["input"]
        inputs = [given] if isinstance(given, str) else given
        server.calls.append(inputs)
        await asyncio.sleep(server.delay)
        data = b",".join(
            b'{"object":"embedding","index":%d,"embedding":%b}' % (index, vector)
            for index, vector in enumerate(texts_vector(server, text) for text in inputs)
        )
        tokens = sum(tokens_of(text) for text in inputs)
        return web.Response(
            body=b'{"object":"list","data":[%b],"model":"stand/in",'
            b'"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (data, tokens, tokens),
            content_type="application/json",
        )

    async def batches(_: web.Request) -> web.Response:
        body = orjson.dumps(server.calls)
        server.calls.clear()
        return web.Response(body=body, content_type="application/json")

    served = server.app()
    served.router.add_post("/v1/embeddings", embeddings)
    served.router.add_get("/batches", batches)
    return served


async def main() -> None:
    """Listen until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that a batch takes")
    server = stand_in()
    server.delay = parser.parse_args().delay
    await serve(app(server))


if __name__ == "__main__":
    asyncio.run(main())
