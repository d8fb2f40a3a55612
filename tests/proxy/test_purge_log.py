"""The log of purges: what a worker that follows it learns, and what the one that purges learns."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from proxy_app.app import Parts
from proxy_app.cache.qdrant import StoreError
from proxy_app.embedding.purges import LOOK
from proxy_app.entries.entry import Entry
from proxy_app.settings import Settings
from proxy_app.workers.folder import Folder
from proxy_app.workers.purge_log import (
    LIMIT,
    Purge,
    PurgeLog,
    last_of,
    purge_all,
    purge_keys,
    since,
)

KEY, OTHER = bytes(32), bytes([1]) * 32


@pytest.fixture
def log(tmp_path: Path) -> PurgeLog:
    return PurgeLog(Folder(tmp_path / "shared"), 1)


def test_who_follows_learns_each_purge_once(log: PurgeLog) -> None:
    first, second = purge_keys([KEY]), Purge(collection="one")
    assert since(log.read(), "") == []
    seen = log.append(first)
    assert since(log.read(), "") == [first]
    log.append(second)
    assert since(log.read(), seen) == [second]
    assert since(log.read(), last_of(log.read())) == []


def test_who_missed_some_learns_that(log: PurgeLog, tmp_path: Path) -> None:
    """After the folder was emptied, and after more purges than the log holds."""
    seen = log.append(purge_all())
    shutil.rmtree(tmp_path / "shared")
    assert since(log.read(), seen) is None
    log.append(purge_all())
    assert since(log.read(), seen) is None


def test_the_log_does_not_grow_without_end(log: PurgeLog, tmp_path: Path) -> None:
    many = purge_keys(number.to_bytes(32, "big") for number in range(200))
    seen = [log.append(many) for _ in range(60)]
    size = (tmp_path / "shared" / "purges.json").stat().st_size
    print(f"60 purges of 200 keys: {size} bytes of {LIMIT}")
    assert size <= LIMIT
    assert since(log.read(), seen[0]) is None
    assert since(log.read(), seen[-2]) == [many]
    larger = purge_keys(number.to_bytes(32, "big") for number in range(5000))
    last = log.append(larger)
    assert since(log.read(), seen[-1]) == [larger]
    log.note(last)
    assert log.late(last) == 0


def test_whoever_has_not_said_so_is_late(tmp_path: Path) -> None:
    """Also one whose note was lost, and all, where the log was."""
    log = PurgeLog(Folder(tmp_path / "shared"), 2)
    mark = log.append(purge_all())
    assert log.late(mark) == 2
    log.note(mark)
    assert log.late(mark) == 1
    (tmp_path / "shared" / "purges-0.done").write_text(mark)
    assert log.late(mark) == 0
    later = log.append(purge_all())
    assert log.late(later) == 2
    log.note(later)
    assert (log.late(mark), log.late(later)) == (0, 1)
    log.forget(os.getpid())
    assert log.late(mark) == 1
    shutil.rmtree(tmp_path / "shared")
    assert log.late(mark) == 2


async def test_done_is_what_is_neither_written_nor_to_be_deleted(tmp_path: Path) -> None:
    """A write of a purged text is under way: only once it is deleted has the worker purged."""
    settings = Settings(upstream_url="http://127.0.0.1:9", qdrant_url="http://127.0.0.1:9")
    parts = Parts(settings, tmp_path)
    store, writes = parts.store, parts.writes
    assert store is not None
    assert writes is not None
    reached, answer, refusals = asyncio.Event(), asyncio.Event(), ["refused", "refused"]
    stored: set[str] = set()

    async def write(collection: str, points: list[tuple[str, Entry]]) -> None:
        reached.set()
        await answer.wait()
        stored.update(point for point, _ in points)
        raise StoreError("no reply came")

    async def delete(collection: str, points: list[str]) -> None:
        if refusals:
            raise StoreError(refusals.pop(), 500)
        stored.difference_update(points)

    store.write, store.delete = write, delete  # type: ignore[method-assign]
    writes.put("c", KEY, Entry(b"[1]"))
    log = PurgeLog(parts.folder, 1)
    running = asyncio.create_task(writes.run())
    following = asyncio.create_task(parts._follower.run())
    try:
        await reached.wait()
        mark = log.append(purge_keys([KEY, OTHER]))
        await asyncio.sleep(3 * LOOK)
        assert log.late(mark) == 1
        answer.set()
        late = [await log.wait(mark) for _ in range(5)]  # a refused deletion is repeated
        assert late[-1] == 0
        assert (stored, refusals) == (set(), [])
    finally:
        for task in (running, following):
            task.cancel()
        await asyncio.gather(running, following, return_exceptions=True)
        await store.close()
        await parts.upstream.close()
        await parts.status.close()
