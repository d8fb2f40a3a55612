"""A purge that says done is done, whatever became of the workers' folder, the store or a worker."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from tests.proxy.conftest import Proxy, StartProxy, listening, serving, worker_pids
from tests.proxy.test_purge import KEY, GatedQdrant, in_every_memory, purge, word
from tests.stand_ins.tei import StandInTei


class RefusingQdrant(GatedQdrant):
    """Refuses so many deletions after the one that opens its gate."""

    refused = 0

    async def _delete(self, request: web.Request) -> web.Response:
        if self.gate.is_set() and self.refused:
            self.refused -= 1
            body = orjson.dumps({"status": {"error": "Service internal error"}})
            return web.Response(body=body, status=500)
        return await super()._delete(request)


@pytest_asyncio.fixture
async def qdrant() -> RefusingQdrant:
    return RefusingQdrant()


def folder_of(proxy: Proxy) -> Path:
    """Find the folder that a proxy's workers share, by the files in it that they have open."""
    return next(path.parent for pid in worker_pids(proxy) for path in files_in_memory(pid))


def files_in_memory(pid: int) -> Iterator[Path]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        path = descriptor.readlink()
        if path.match("/dev/shm/embedrack-*/*"):
            yield path


def empty(folder: Path) -> None:
    """Do what systemd-logind does when a user logs out: the folder goes too."""
    shutil.rmtree(folder)


def damage(folder: Path) -> None:
    """Leave half of what was to be written, as a disk without room does."""
    for path in folder.glob("purges.[jl]*"):
        with path.open("ab") as file:
            file.write(b'{"keys":["00')


@pytest.mark.parametrize("harm", [empty, damage])
async def test_a_purge_after_the_workers_folder_was_harmed(
    start: StartProxy, qdrant: RefusingQdrant, harm: Callable[[Path], None]
) -> None:
    """Two workers: neither has the text afterwards, and the purge says so."""
    proxy = await start(workers=2, admin_key=KEY)
    await in_every_memory(proxy, "a", 2)
    folder = folder_of(proxy)
    assert (await purge(proxy, inputs=["another"]))[0] == 200
    harm(folder)
    status, reply = await purge(proxy, inputs=["a"])
    there = await word(proxy, "a")
    print(f"{harm.__name__}: {status} {reply}, then a {there}, {len(qdrant.points)} in the store")
    assert (status, reply) == (200, {"texts": 1, "workers_late": 0})
    assert there == "miss"


async def test_again_and_again_emptied(start: StartProxy) -> None:
    """Workers that start afterwards take part too, and the metrics go on."""
    proxy = await start(workers=2, admin_key=KEY)
    for text in ("a", "b"):
        await in_every_memory(proxy, text, 2)
        empty(folder_of(proxy))
        former = worker_pids(proxy)
        os.kill(min(former), signal.SIGKILL)

        async def is_replaced(former: set[int] = former) -> bool:
            return len(worker_pids(proxy) - former) == 1 and len(worker_pids(proxy)) == 2

        await proxy.until(is_replaced)

        async def is_done() -> bool:
            try:
                status, reply = await purge(proxy, all=True)
            except aiohttp.ServerDisconnectedError:  # a connection to the worker that was killed
                return False
            return status == 200 and not reply["workers_late"]

        await proxy.until(is_done)
        assert await word(proxy, text) == "miss"
        assert (await purge(proxy, all=True))[0] == 200
        assert "embedrack_inputs_total" in (await proxy.get("/metrics"))[1]


async def test_a_delete_that_fails_and_a_write_that_is_repeated(
    start: StartProxy, qdrant: RefusingQdrant
) -> None:
    """What was being written during a purge is deleted, however often that is refused."""
    proxy = await start(admin_key=KEY)
    qdrant.gate.clear()
    qdrant.refused = 2
    await word(proxy, "purged")

    async def is_being_written() -> bool:
        return qdrant.counts["arrived"] == 1

    await proxy.until(is_being_written)
    status, reply = await purge(proxy, inputs=["purged"])
    points = len(qdrant.points)
    print(f"{status} {reply}, {points} entries in the store")

    async def is_gone() -> bool:
        return not qdrant.points

    await proxy.until(is_gone, 10)
    assert status == 503 or reply["workers_late"] or not points


async def test_a_worker_that_is_killed_while_it_writes_what_is_purged(
    start: StartProxy, qdrant: RefusingQdrant
) -> None:
    """Whichever worker it is: a purge that says done leaves nothing in the store."""
    proxy = await start(workers=2, admin_key=KEY)
    qdrant.gate.clear()
    texts: list[str] = []

    async def both_are_writing() -> bool:
        texts.append(f"text {len(texts)}")
        await word(proxy, texts[-1])
        return qdrant.counts["arrived"] == 2

    await proxy.until(both_are_writing)
    purging = asyncio.create_task(purge(proxy, inputs=texts))
    await asyncio.sleep(0.3)
    os.kill(min(worker_pids(proxy)), signal.SIGKILL)
    try:
        reply: object = await purging
    except aiohttp.ClientError as error:
        reply = f"{type(error).__name__}, so it is asked for again"

    async def is_done() -> bool:
        return await purge(proxy, inputs=texts) == (200, {"texts": len(texts), "workers_late": 0})

    said_done = isinstance(reply, tuple) and not reply[1].get("workers_late", 1)
    if not said_done:
        await proxy.until(is_done)
    print(f"{reply}, {len(qdrant.points)} of {len(texts)} entries in the store")
    assert not qdrant.points
    await asyncio.sleep(0.5)
    assert not qdrant.points


async def test_a_purge_that_cannot_be_passed_on_says_so(start: StartProxy) -> None:
    """A file stands where the folder was: nothing is purged."""
    proxy = await start(admin_key=KEY)
    await word(proxy, "a")
    folder = folder_of(proxy)
    empty(folder)
    folder.write_text("")
    try:
        status, reply = await purge(proxy, inputs=["a"])
        print(status, reply)
        assert status == 503
        assert "not done" in reply["error"]
    finally:
        folder.unlink()


async def test_what_a_killed_master_left_is_removed_by_the_next(tei: StandInTei) -> None:
    """A folder whose master lives stays."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(listening(tei.app()))
        living = await stack.enter_async_context(serving(upstream))
        async with serving(upstream) as killed:
            left = folder_of(killed)
            workers = worker_pids(killed)
            killed.process.kill()
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            await killed.process.wait()
        assert left.is_dir()
        third = await stack.enter_async_context(serving(upstream))
        print(f"left after the next start: {left.is_dir()}")
        assert not left.is_dir()
        for proxy in (living, third):
            assert folder_of(proxy).is_dir()
