"""Write-behind: what was computed is stored after the reply, from a queue bounded in bytes.

A loss here is only ever a later miss, and it is counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from proxy_app.entry import Entry
from proxy_app.keys import point_id
from proxy_app.metrics import STORE_ERRORS, WRITES_DROPPED
from proxy_app.store import Store, StoreError

#: One upsert holds at most so many points and bytes (Qdrant's own limit is 32 MB).
BATCH_POINTS = 256
BATCH_BYTES = 8_000_000
#: What a queued entry takes beside its vector.
ENTRY_OVERHEAD = 300
#: Seconds between attempts while Qdrant is away.
RETRY = 1.0


@dataclass(frozen=True, slots=True)
class _Write:
    collection: str
    point: str
    entry: Entry


class Writes:
    """The queue of one worker; ``limit`` and ``size`` are bytes."""

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self.limit = limit
        self.size = 0
        self._queue: deque[_Write] = deque()
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._queue)

    def __repr__(self) -> str:
        return f"<Writes queued={len(self)} size={self.size} limit={self.limit}>"

    def put(self, collection: str, key: bytes, entry: Entry) -> None:
        """Queue an entry, or drop and count it where the queue is full."""
        cost = len(entry.vector) + ENTRY_OVERHEAD
        if self.size + cost > self.limit:
            WRITES_DROPPED.inc()
            return
        self._queue.append(_Write(collection, point_id(key), entry))
        self.size += cost
        self._filled.set()
        self._empty.clear()

    async def run(self) -> None:
        """Write for ever; run as a task."""
        while True:
            await self._filled.wait()
            batch = self._next_batch()
            await self._write(batch)
            for write in batch:
                self._queue.popleft()
                self.size -= len(write.entry.vector) + ENTRY_OVERHEAD
            if not self._queue:
                self._filled.clear()
                self._empty.set()

    async def drain(self, seconds: float) -> None:
        """Wait until all is written, at most ``seconds``."""
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except asyncio.TimeoutError:
            WRITES_DROPPED.inc(len(self._queue))

    def _next_batch(self) -> list[_Write]:
        """Return the head of the queue, of one collection, which stays there until written."""
        batch: list[_Write] = []
        size = 0
        for write in self._queue:
            size += len(write.entry.vector)
            if batch and (
                len(batch) >= BATCH_POINTS
                or size > BATCH_BYTES
                or write.collection != batch[0].collection
            ):
                break
            batch.append(write)
        return batch

    async def _write(self, batch: list[_Write]) -> None:
        """Write a batch, however long Qdrant is away; halve one that Qdrant refuses."""
        points = [(write.point, write.entry) for write in batch]
        while True:
            try:
                await self._store.write(batch[0].collection, points)
                return
            except StoreError as error:
                STORE_ERRORS["write"].inc()
                if not 400 <= error.status < 500 or error.status in (401, 403, 404, 408, 429):
                    await asyncio.sleep(RETRY)
                    continue
            if len(batch) == 1:
                WRITES_DROPPED.inc()
                return
            middle = len(batch) // 2
            await self._write(batch[:middle])
            await self._write(batch[middle:])
            return
