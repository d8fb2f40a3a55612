"""Purges: what is forgotten in every worker of this proxy, and in the store."""

from __future__ import annotations

import asyncio

from proxy_app.cache.store import Store
from proxy_app.cache.writes import Writes
from proxy_app.embedding.service import Service
from proxy_app.entries.keys import point_id
from proxy_app.workers.purge_log import Purge, PurgeLog

#: Seconds between two looks at the log.
LOOK = 0.25


class Follower:
    """Applies the log to one worker's L1, flights and queued writes."""

    def __init__(
        self, log: PurgeLog, service: Service, store: Store | None, writes: Writes | None
    ) -> None:
        self._log = log
        self._service = service
        self._store = store
        self._writes = writes
        # What was purged before this worker was there concerns nothing that it holds.
        self._place = log.length()
        log.note(self._place)

    async def run(self) -> None:
        """Follow for ever; run as a task."""
        while True:
            if self._log.length() > self._place:
                purges, self._place = self._log.read(self._place)
                for purge in purges:
                    self._apply(purge)
                self._log.note(self._place)
            await asyncio.sleep(LOOK)

    def _apply(self, purge: Purge) -> None:
        if purge.keys:
            keys = frozenset(bytes.fromhex(key) for key in purge.keys)
            self._service.flights.purge(keys)
            for key in keys:
                self._service.memory.drop(key)
            if self._writes is not None:
                points = {point_id(key) for key in keys}
                self._writes.purge(lambda write: write.point in points)
            return
        # A key does not tell its namespace: what is dropped beyond need is only computed again.
        self._service.flights.purge(None)
        self._service.memory.clear()
        if self._writes is not None:
            self._writes.purge(lambda write: purge.collection in ("", write.collection))
        if self._store is not None:
            self._store.doubt(purge.collection)


class Purger:
    """Carries a purge out: in every worker, and in the store."""

    def __init__(self, log: PurgeLog, store: Store | None) -> None:
        self._log = log
        self._store = store

    async def purge(self, purge: Purge, current: str) -> dict[str, object]:
        """Purge, and say what happened; ``current`` is the collection that keys belong to.

        Raises StoreError where the workers have purged and the store has not.
        """
        # Workers stop writing it, then the store forgets it, then workers forget what they read of
        # it in between.
        await self._log.wait(self._log.append(purge))
        told: dict[str, object] = {}
        try:
            if self._store is not None:
                told = await self._store_forgets(self._store, purge, current)
        finally:
            late = await self._log.wait(self._log.append(purge))
        return told | {"workers_late": late}

    async def _store_forgets(self, store: Store, purge: Purge, current: str) -> dict[str, object]:
        if purge.keys:
            points = [point_id(bytes.fromhex(key)) for key in purge.keys]
            await store.delete(current, points)
            return {"texts": len(points)}
        names = [purge.collection] if purge.collection else await store.collections()
        dropped = [name for name in names if await store.drop(name)]
        return {"collections": dropped}
