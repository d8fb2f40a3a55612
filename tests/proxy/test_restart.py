"""A worker that has to end lets every request that reached it be answered."""

from __future__ import annotations

import asyncio
import os
import signal

import aiohttp

from tests.proxy.conftest import Proxy, StartProxy, worker_pids


async def test_no_request_is_lost_while_workers_end(start: StartProxy) -> None:
    """Clients that keep their connections and never pause see five workers go, and no error."""
    proxy = await start(workers=1)
    await proxy.embed(inputs="known")
    ended = asyncio.Event()
    clients = [asyncio.create_task(keep_asking(proxy, ended)) for _ in range(20)]
    for _ in range(5):
        await asyncio.sleep(0.3)
        (worker,) = worker_pids(proxy)
        os.kill(worker, signal.SIGTERM)

        async def another(worker: int = worker) -> bool:
            return worker not in worker_pids(proxy) and await proxy.is_ready()

        await proxy.until(another)
    ended.set()
    assert min(await asyncio.gather(*clients)) > 0


async def keep_asking(proxy: Proxy, ended: asyncio.Event) -> int:
    """Ask on one kept connection as fast as replies come; any error is raised."""
    asked = 0
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        while not ended.is_set():
            async with session.post(proxy.url + "/embed", json={"inputs": "known"}) as reply:
                assert reply.status == 200
                await reply.read()
            asked += 1
    return asked
