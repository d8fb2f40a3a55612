"""A request that is cancelled at any of its awaits leaves nothing: seen from inside one worker."""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from proxy_app import app as app_module
from proxy_app.app import Parts
from proxy_app.settings import Settings
from tests.cancelling import Cancellation
from tests.proxy.conftest import listening
from tests.stand_ins.qdrant import StandInQdrant
from tests.stand_ins.tei import StandInTei

#: A hundred texts with this are a body that counts (``bodies.LARGE``) and four batches.
PADDING = "x" * 3000
OK = b"HTTP/1.1 200 OK\r\n"


class Worker:
    """One worker in this event loop, and a client of it."""

    def __init__(self, parts: Parts, runner: web.AppRunner) -> None:
        self.parts = parts
        self._port = runner.addresses[0][1]
        self._idle = self._held()
        self._cancellation: Cancellation | None = None
        assert runner.server is not None
        self._handle = runner.server.request_handler
        runner.server.request_handler = self._watched

    async def post(self, inputs: list[str], path: str) -> bytes:
        """Ask over a connection of its own; returns the reply's first line, if there is one."""
        body = json.dumps({"inputs": inputs}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        line = b""
        with suppress(ConnectionError):
            line = await reader.readline()
            await reader.read()
        writer.transport.abort()
        await self._settle()
        return line

    async def cancel(self, cancellation: Cancellation, inputs: list[str], path: str) -> None:
        """Ask, and have the request cancelled."""
        with cancellation:
            self._cancellation = cancellation
            await self.post(inputs, path)
            self._cancellation = None

    async def left(self, files: int = 0, tasks: int = 0, looks: int = 500) -> tuple[int, int]:
        """Count the open files and the tasks of all that is in this loop.

        Looks several times, until there are so many at most: the worker also asks TEI now and then.
        """
        counts = []
        for _ in range(looks):
            counts.append((len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())))
            if counts[-1][0] <= files and counts[-1][1] <= tasks:
                break
            await asyncio.sleep(0.01)
        return min(counts)

    def _watched(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        handling = self._handle(request)
        cancellation = self._cancellation
        return cancellation.of(handling) if cancellation else handling  # type: ignore[arg-type]

    def _held(self) -> str:
        parts = self.parts
        return f"{parts.permits!r} {parts.service.flights!r} {parts.bodies!r} {parts.writes!r}"

    async def _settle(self) -> None:
        for _ in range(400):
            if self._held() == self._idle:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"this is left: {self._held()}")


@asynccontextmanager
async def working(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tei: StandInTei
) -> AsyncIterator[Worker]:
    """Run a worker as gunicorn does, but in this event loop."""
    made: list[Parts] = []

    class Seen(Parts):
        def __init__(self, settings: Settings, folder: Path) -> None:
            super().__init__(settings, folder)
            made.append(self)

    monkeypatch.setattr(app_module, "Parts", Seen)
    qdrant = StandInQdrant()
    async with listening(tei.app()) as upstream, listening(qdrant.app()) as store:
        settings = Settings(upstream_url=upstream, qdrant_url=store, store_timeout=2.0, workers=1)
        runner = await app_module.runner(settings, folder)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield Worker(made[0], runner)
        finally:
            await runner.cleanup()


@pytest.mark.parametrize("late", [False, True], ids=["it waits", "what it waits for is there"])
@pytest.mark.parametrize(
    "kind", ["miss", "miss over new connections", "L2 hit", "large body", "passed on"]
)
async def test_nothing_is_left_of_a_request_that_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, late: bool
) -> None:
    """Permits, flights, bytes, queued writes, sockets and tasks are as before it."""
    tei = StandInTei()
    number = 0
    path = "/similarity" if kind == "passed on" else "/embed"

    def inputs() -> list[str]:
        """Make a request of this kind."""
        nonlocal number
        number += 1
        worker.parts.service.memory.clear()
        match kind:
            case "L2 hit":
                return ["known"]
            case "large body" | "passed on":
                return [f"{number} {i} {PADDING}" for i in range(100)]
            case "miss over new connections":
                tei.faults = deque(["bye"])
        return [f"{number}"]

    async with working(monkeypatch, tmp_path, tei) as worker:
        for _ in range(3):
            assert await worker.post(inputs(), path) == OK
        files, tasks = await worker.left(looks=20)
        awaits = 0
        while True:
            cancellation = Cancellation(awaits + 1, late)
            await worker.cancel(cancellation, inputs(), path)
            if not cancellation.happened:
                break
            awaits += 1
            assert await worker.post(inputs(), path) == OK
            after = await worker.left(files, tasks)
            assert after[0] <= files, f"open files after await {awaits}"
            assert after[1] <= tasks, f"tasks after await {awaits}"
        print(f"{kind}: cancelled at {awaits} awaits")
        assert awaits
