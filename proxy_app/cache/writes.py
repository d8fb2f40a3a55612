"""Write-behind: what was computed is stored after the reply, from a queue bounded in bytes.

A loss here is only ever a later miss, and it is counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from proxy_app.cache.qdrant import StoreError
from proxy_app.cache.store import Store
from proxy_app.entries.entry import Entry
from proxy_app.entries.keys import point_id
from proxy_app.errors import is_refusal
from proxy_app.telemetry.metrics import STORE_ERRORS, WRITES_DROPPED

#: One upsert holds at most so many points and bytes (Qdrant's own limit is 32 MB).
BATCH_POINTS = 256
BATCH_BYTES = 8_000_000
#: What a queued entry takes beside its vector.
ENTRY_OVERHEAD = 300
#: Seconds between attempts while Qdrant is away.
RETRY = 1.0


class Write(msgspec.Struct, eq=False):
    """One entry on its way to a collection; ``wanted`` until it is purged."""

    collection: str
    point: str
    entry: Entry
    wanted: bool = True


class Writes:
    """The queue of one worker; ``limit`` and ``size`` are bytes."""

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self.limit = limit
        self.size = 0
        self._queue: deque[Write] = deque()
        self._in_hand: list[Write] = []
        self._sent: list[Write] = []  # of those, what the store has, or may have, by now
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._queue) + len(self._in_hand)

    def __repr__(self) -> str:
        return f"<Writes queued={len(self)} size={self.size} limit={self.limit}>"

    def put(self, collection: str, key: bytes, entry: Entry) -> None:
        """Queue an entry, or drop and count it where the queue is full."""
        cost = cost_of(entry)
        if self.size + cost > self.limit:
            WRITES_DROPPED.inc()
            return
        self._queue.append(Write(collection, point_id(key), entry))
        self.size += cost
        self._filled.set()
        self._empty.clear()

    async def run(self) -> None:
        """Write for ever; run as a task."""
        while True:
            await self._filled.wait()
            self._in_hand = self._in_hand or self._next_batch()
            await self._write(self._in_hand)
            self.size -= sum(cost_of(write.entry) for write in self._in_hand)
            self._in_hand = []
            if not self._queue:
                self._filled.clear()
                self._empty.set()

    async def drain(self, seconds: float) -> None:
        """Wait until all is written, at most ``seconds``."""
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except asyncio.TimeoutError:
            WRITES_DROPPED.inc(len(self))

    @property
    def is_taking_back(self) -> bool:
        """Tell whether something that was purged is, or may be, yet to be deleted."""
        return not all(write.wanted for write in self._sent)

    def purge(self, is_purged: Callable[[Write], bool]) -> None:
        """Write none of these any more; what is being written just now is deleted after it."""
        left: deque[Write] = deque()
        for write in self._queue:
            if is_purged(write):
                self.size -= cost_of(write.entry)
            else:
                left.append(write)
        self._queue = left
        for write in self._in_hand:
            write.wanted = write.wanted and not is_purged(write)

    def _next_batch(self) -> list[Write]:
        """Take the head of the queue, of one collection; empty where all was purged."""
        batch: list[Write] = []
        size = 0
        while self._queue:
            write = self._queue[0]
            size += len(write.entry.vector)
            if batch and (
                len(batch) >= BATCH_POINTS
                or size > BATCH_BYTES
                or write.collection != batch[0].collection
            ):
                break
            batch.append(self._queue.popleft())
        return batch

    async def _write(self, batch: list[Write]) -> None:
        """Write a batch, however long Qdrant is away; halve one that Qdrant refuses."""
        while wanted := [write for write in batch if write.wanted]:
            self._sent = wanted
            try:
                await self._store.write(
                    wanted[0].collection, [(write.point, write.entry) for write in wanted]
                )
            except StoreError as error:
                STORE_ERRORS["write"].inc()
                if not is_refusal(error.status):
                    # Without a reply it may have been written all the same.
                    await self._take_back()
                    await asyncio.sleep(RETRY)
                    continue
                self._sent = []
            else:
                await self._take_back()
                return
            if len(batch) == 1:
                WRITES_DROPPED.inc()
                return
            middle = len(batch) // 2
            await self._write(batch[:middle])
            await self._write(batch[middle:])
            return

    async def _take_back(self) -> None:
        """Delete what was purged while it was being written, however often that fails."""
        deleted: set[str] = set()
        while gone := [
            write.point for write in self._sent if not write.wanted and write.point not in deleted
        ]:
            try:
                await self._store.delete(self._sent[0].collection, gone)
                deleted.update(gone)
            except StoreError:
                STORE_ERRORS["write"].inc()
                await asyncio.sleep(RETRY)
        self._sent = []


def cost_of(entry: Entry) -> int:
    """Return the bytes that a queued entry takes."""
    return len(entry.vector) + ENTRY_OVERHEAD
