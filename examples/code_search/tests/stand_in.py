"""An endpoint that fails on request: it speaks TEI's ``/info`` and ``/embed``."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

DIMENSION = 8


class StandIn:
    """Embeds each text as a hash of it; ``fails`` has what the next requests get instead."""

    def __init__(self) -> None:
        self.url = ""
        #: As our proxy tells it; a plain TEI has no ``embedrack``.
        self.info: dict[str, Any] = {
            "model_id": "stand-in",
            "model_sha": "1",
            "embedrack": {"dimension": DIMENSION, "namespace": "1"},
        }
        self.fails: list[web.Response | None] = []
        self.limit = 10_000
        #: After so many requests the gate closes.
        self.answers = 1_000_000
        self.texts: list[str] = []
        self.sizes: list[int] = []
        self.keys: list[str] = []
        self.at_once = self.most_at_once = 0
        #: While it is clear, no request is answered.
        self.gate = asyncio.Event()
        self.gate.set()
        #: Set once a request has come.
        self.asked = asyncio.Event()

    async def tell(self, _: web.Request) -> web.Response:
        return web.json_response(self.info)

    async def embed(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("Authorization", ""))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.asked.set()
        try:
            texts = (await request.json())["inputs"]
            if self.answers <= 0:
                self.gate.clear()
            self.answers -= 1
            await self.gate.wait()
            await asyncio.sleep(0)
            if self.fails:
                fail = self.fails.pop(0)
                if fail is None:
                    assert request.transport
                    request.transport.abort()
                    return web.Response()
                return fail
            if len(texts) > self.limit:
                return web.json_response({"error": "too large"}, status=413)
            self.sizes.append(len(texts))
            self.texts += texts
            return web.json_response([vector(text) for text in texts])
        finally:
            self.at_once -= 1


def vector(text: str) -> list[float]:
    """Embed a text: eight numbers of its own."""
    return [byte / 255 + 0.01 for byte in hashlib.sha256(text.encode()).digest()[:DIMENSION]]


@asynccontextmanager
async def standing_in() -> AsyncIterator[StandIn]:
    """Run one on a free port of the loopback."""
    stand_in = StandIn()
    app = web.Application()
    app.router.add_get("/info", stand_in.tell)
    app.router.add_post("/embed", stand_in.embed)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stand_in.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield stand_in
    stand_in.gate.set()
    await runner.cleanup()
