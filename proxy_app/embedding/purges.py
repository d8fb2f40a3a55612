"""Purges: what is forgotten in every worker of this proxy, and in the store."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from proxy_app.cache.store import Store
from proxy_app.cache.writes import Writes
from proxy_app.embedding.service import Service
from proxy_app.entries.keys import point_id
from proxy_app.errors import EmbedError, Kind
from proxy_app.workers.purge_log import Purge, PurgeLog, last_of, purge_all, since

log = logging.getLogger("embedrack")

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
        self._state = log.state()
        self._last = last_of(log.read())
        self._noted = ""
        with suppress(OSError):  # it is tried again, and until then this worker is late
            self._note()

    async def run(self) -> None:
        """Follow for ever; run as a task."""
        while True:
            self._look()
            await asyncio.sleep(LOOK)

    def _look(self) -> None:
        state = self._log.state()
        if state != self._state:
            logged = self._log.read()
            purges = since(logged, self._last)
            if purges is None:
                log.warning("purges were missed: this worker forgets all that it holds")
                purges = [purge_all()]
            for purge in purges:
                self._apply(purge)
            self._state, self._last = state, last_of(logged)
        # What is being written just now is deleted after that: only then is the purge done.
        if self._writes is not None and self._writes.is_taking_back:
            return
        if self._noted != self._last or not self._log.is_noted():
            self._note()

    def _note(self) -> None:
        self._log.note(self._last)
        self._noted = self._last

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

        ``workers_late`` of the result counts the workers that did not confirm it. Raises StoreError
        where the workers have purged and the store has not, EmbedError where the workers cannot be
        reached.
        """
        forgotten: dict[str, object] = {}
        # Workers stop writing it; then the store forgets it. Who was late may have written it in
        # between, so both are done once more.
        for _ in range(2):
            late = await self._workers_forget(purge)
            if self._store is not None:
                forgotten = await self._store_forgets(self._store, purge, current, forgotten)
            if not late:
                break
        # What workers read of the store before it forgot is forgotten too.
        late = max(late, await self._workers_forget(purge))
        return forgotten | {"workers_late": late}

    async def _workers_forget(self, purge: Purge) -> int:
        """Pass the purge on; returns how many workers have not confirmed it in time."""
        try:
            return await self._log.wait(self._log.append(purge))
        except OSError as error:
            raise EmbedError(
                Kind.UNHEALTHY, f"the purge is not done: the workers cannot be reached: {error}"
            ) from None

    async def _store_forgets(
        self, store: Store, purge: Purge, current: str, before: dict[str, object]
    ) -> dict[str, object]:
        """Delete it; returns what was deleted, with what was deleted ``before``."""
        if purge.keys:
            points = [point_id(bytes.fromhex(key)) for key in purge.keys]
            await store.delete(current, points)
            return {"texts": len(points)}
        names = [purge.collection] if purge.collection else await store.collections()
        dropped = [name for name in names if await store.drop(name)]
        former = before.get("collections", [])
        assert isinstance(former, list)
        return {"collections": sorted({*former, *dropped})}
