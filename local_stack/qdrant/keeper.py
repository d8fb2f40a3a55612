"""Background upkeep: Edge flushes and optimises only when asked to."""

from __future__ import annotations

import asyncio
import logging
import time

from local_stack.qdrant.catalogue import Catalogue
from local_stack.qdrant.collection import Collection
from local_stack.qdrant.errors import ApiError, NotFound
from local_stack.qdrant.folder import sync_files

TICK_S = 0.5
FLUSH_INTERVAL_S = 5.0
FLUSH_BYTES = 32 * 2**20
"""A flush grows with what is new, so much news is flushed before its time."""
QUIET_S = 2.0
"""Optimising stops everything else (10 ms per thousand 1024-d points kept), so it waits for this
long without a request ..."""
OPTIMIZE_LATEST_S = 600.0
"""... but no longer than this, lest a busy process never give back the room of deleted points."""

log = logging.getLogger(__name__)


class Keeper:
    """Flushes what changed every few seconds and optimises when nobody asks anything."""

    def __init__(
        self, catalogue: Catalogue, quiet_s: float = QUIET_S, flush_s: float = FLUSH_INTERVAL_S
    ) -> None:
        """Takes care of the collections of a catalogue, present and future ones."""
        self._quiet_s = quiet_s
        self._flush_s = flush_s
        self.last_request = time.monotonic()
        self._catalogue = catalogue
        self._flushed: dict[Collection, float] = {}
        self._optimized: dict[Collection, float] = {}

    async def run(self) -> None:
        """Works until cancelled. A failure is logged and tried again on the next tick."""
        while True:
            await asyncio.sleep(TICK_S)
            collections = self._catalogue.all()
            for collection in collections:
                await self._keep(collection)
            self._flushed = {c: t for c, t in self._flushed.items() if c in collections}
            self._optimized = {c: t for c, t in self._optimized.items() if c in collections}

    async def _keep(self, collection: Collection) -> None:
        try:
            if self._flush_is_due(collection):
                await asyncio.to_thread(sync_files, collection.folder)
                collection.flush()
                self._flushed[collection] = time.monotonic()
            if self._optimize_is_due(collection):
                collection.optimize()
                self._optimized[collection] = time.monotonic()
        except NotFound:
            return  # It was deleted meanwhile.
        except ApiError as error:
            log.warning("upkeep of the collection %s failed: %s", collection.name, error)

    def _flush_is_due(self, collection: Collection) -> bool:
        if collection.unflushed_bytes > FLUSH_BYTES:
            return True
        since = time.monotonic() - self._flushed.setdefault(collection, 0.0)
        return collection.unflushed_bytes > 0 and since > self._flush_s

    def _optimize_is_due(self, collection: Collection) -> bool:
        if not collection.unoptimized:
            return False
        now = time.monotonic()
        waiting = now - self._optimized.setdefault(collection, now)
        return now - self.last_request >= self._quiet_s or waiting > OPTIMIZE_LATEST_S
