"""``embedrack load-test`` as a process, and an endpoint that counts and fails on request."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from tests.proxy.conftest import qdrant, start, tei
from tests.stand_ins.process import heeding_signals

__all__ = ["Done", "Endpoint", "begin", "load_test", "qdrant", "start", "tei"]


@dataclass
class Done:
    """A load test that has ended."""

    status: int
    out: str
    err: str

    @property
    def figures(self) -> dict[str, Any]:
        """Its figures, where it was run with ``--json -``."""
        return dict(json.loads(self.out))


async def begin(
    *arguments: str, stderr: int = asyncio.subprocess.PIPE
) -> asyncio.subprocess.Process:
    """Start a load test."""
    with heeding_signals():
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy_app", "load-test", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )


async def load_test(*arguments: str) -> Done:
    """Run a load test to its end."""
    process = await begin(*arguments)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


class Endpoint:
    """Answers as the proxy does, the first request well; then ``faults`` are used up, one each.

    With ``gather`` no reply is sent, but the first, before so many further requests are here.
    """

    def __init__(self, *faults: str, gather: int = 0) -> None:
        self.faults = deque(["", *faults])
        self.requests: list[list[str]] = []
        self.hits = self.misses = 0
        self._gather = gather
        self._gathered = asyncio.Event()
        self._seen: set[str] = set()

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.post("/embed", self._embed)])
        return app

    async def _embed(self, request: web.Request) -> web.Response:
        inputs = orjson.loads(await request.read())["inputs"]
        texts = [inputs] if isinstance(inputs, str) else inputs
        self.requests.append(texts)
        if len(self.requests) > self._gather:
            self._gathered.set()
        if len(self.requests) > 1 and self._gather:
            await self._gathered.wait()
        fault = self.faults.popleft() if self.faults else ""
        if fault.isdecimal():
            headers = {"Retry-After": "1"} if fault in ("429", "503") else {}
            return web.Response(status=int(fault), text=f"it is {fault}", headers=headers)
        if fault == "html":
            return web.Response(text="<html>", content_type="text/html")
        assert request.transport is not None
        if fault == "close":
            request.transport.close()
        vectors: list[Any] = [[0.5, -1e-7, 3] for _ in texts]
        if fault == "short":
            vectors.pop()
        if fault == "null":
            vectors[-1] = [0.5, None, 3]
        if fault == "dimension":
            vectors[-1] = [0.5]
        hits = sum(text in self._seen for text in texts)
        self._seen.update(texts)
        if len(self.requests) > 1 and not fault:
            self.hits += hits
            self.misses += len(texts) - hits
        cache = f"partial; hits={hits}; misses={len(texts) - hits}"
        return web.json_response(vectors, headers={"X-Cache": cache})
