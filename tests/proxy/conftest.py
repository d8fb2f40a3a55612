"""Real gunicorn workers in front of stand-ins that live in the test's own event loop."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest_asyncio
from aiohttp import web

from tests.stand_ins.process import free_port
from tests.stand_ins.qdrant import StandInQdrant
from tests.stand_ins.tei import StandInTei

#: Seconds of the processor for which no turn of a worker's loop may hold it, whatever it is sent:
#: more than the largest bodies take on a slow machine, less than a fault takes on a fast one.
HELD = 1.5


@asynccontextmanager
async def listening(app: web.Application, port: int = 0) -> AsyncIterator[str]:
    """Run an application in this event loop; gives its URL."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass
class Proxy:
    """A running `embedrack serve` and a client of it."""

    url: str
    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    log: bytearray

    async def embed(self, **body: object) -> tuple[int, list[bytes], dict[str, str]]:
        """Post to /embed; gives status, the raw vectors (or the error body), and headers."""
        return await self.post(json.dumps(body).encode())

    async def post(
        self, body: bytes, path: str = "/embed"
    ) -> tuple[int, list[bytes], dict[str, str]]:
        """Post these very bytes."""
        async with self.session.post(self.url + path, data=io.BytesIO(body)) as reply:
            raw = await reply.read()
            return reply.status, split_raw(raw), dict(reply.headers)

    async def get(self, path: str) -> tuple[int, str]:
        """Get a path; gives status and text."""
        async with self.session.get(self.url + path) as reply:
            return reply.status, await reply.text()

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
        """Wait for a condition; fails the test when it does not come true in time."""
        for _ in range(int(seconds / 0.05)):
            if await condition():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not within {seconds} s; log:\n{self.log.decode()}")

    async def is_ready(self) -> bool:
        """Tell whether the proxy can answer misses."""
        try:
            return (await self.get("/readyz"))[0] == 200
        except aiohttp.ClientError:
            return False


def worker_pids(proxy: Proxy) -> set[int]:
    """Return the processes of the proxy's workers."""
    children = subprocess.run(
        ["pgrep", "-P", str(proxy.process.pid)], capture_output=True, check=False
    )
    return {int(pid) for pid in children.stdout.split()}


def split_raw(raw: bytes) -> list[bytes]:
    """Cut ``[[…],[…]]`` into the bytes of its elements; anything else is one element."""
    if not raw.startswith(b"[["):
        return [raw]
    return [b"[" + part + b"]" for part in raw[2:-2].split(b"],[")]


StartProxy = Callable[..., Awaitable[Proxy]]


@asynccontextmanager
async def serving(upstream: str, qdrant: str = "", **settings: object) -> AsyncIterator[Proxy]:
    """Run `embedrack serve` as a user would; settings are EMBEDRACK_ variables in lower case."""
    port = settings.pop("port", None) or free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDRACK_")}
    given = {"upstream_url": upstream, "qdrant_url": qdrant, "bind": "127.0.0.1", "port": port}
    for name, value in (given | {"workers": 1, "store_timeout": 2} | settings).items():
        environment["EMBEDRACK_" + name.upper()] = str(value)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy_app", "serve", env=environment, stderr=asyncio.subprocess.PIPE
    )
    log = bytearray()

    async def read_log() -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            log.extend(line)

    reading = asyncio.create_task(read_log())
    async with aiohttp.ClientSession() as session:
        proxy = Proxy(f"http://127.0.0.1:{port}", process, session, log)

        async def listens() -> bool:
            assert process.returncode is None, log.decode()
            try:
                answers = (await proxy.get("/livez"))[0] == 200
            except aiohttp.ClientError:
                return False
            # gunicorn starts its workers one by one; the first answers before the last is there.
            return answers and len(worker_pids(proxy)) == int(environment["EMBEDRACK_WORKERS"])

        try:
            await proxy.until(listens)
            yield proxy
        finally:
            await session.close()  # the proxy waits a moment for clients that are still there
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), 40)
            await reading
    held = re.findall(rb"the event loop was held for ([\d.]+) s", log)
    assert max(map(float, held), default=0.0) < HELD, log.decode()


@pytest_asyncio.fixture
async def tei() -> StandInTei:
    return StandInTei()


@pytest_asyncio.fixture
async def qdrant() -> StandInQdrant:
    return StandInQdrant()


@pytest_asyncio.fixture
async def start(tei: StandInTei, qdrant: StandInQdrant) -> AsyncIterator[StartProxy]:
    """Start the stand-ins and a ready proxy before them: ``await start(workers=2)``."""
    async with AsyncExitStack() as stack:

        async def start_proxy(*, store: bool = True, **settings: object) -> Proxy:
            upstream = await stack.enter_async_context(listening(tei.app()))
            url = await stack.enter_async_context(listening(qdrant.app())) if store else ""
            proxy = await stack.enter_async_context(serving(upstream, url, **settings))
            await proxy.until(proxy.is_ready)

            async def store_answers() -> bool:
                return '"store":"ok"' in (await proxy.get("/readyz"))[1]

            if store and qdrant.distance == "Dot":
                await proxy.until(store_answers)
            return proxy

        yield start_proxy
