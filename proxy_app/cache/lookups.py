"""Look-ups: within a budget of time, and with a pause where the store fails again and again.

A look-up that is late, refused or wrong makes misses, and each is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from proxy_app.cache.memory import is_old
from proxy_app.cache.qdrant import Payload, Point, Qdrant, StoreError
from proxy_app.entries import vectors
from proxy_app.entries.entry import Entry
from proxy_app.entries.keys import point_id
from proxy_app.settings import Settings
from proxy_app.telemetry.metrics import STORE_ERRORS

#: Points in one look-up.
LOOKUP_POINTS = 64
#: Failures in a row after which look-ups pause, and for how many seconds; one that fails after a
#: pause starts the next.
PATIENCE = 3
PAUSE = 1.0


class Lookups:
    """The look-ups of one worker; ``failed`` is called with a collection and what went wrong."""

    def __init__(
        self, settings: Settings, qdrant: Qdrant, failed: Callable[[str, StoreError], None]
    ) -> None:
        self._qdrant = qdrant
        self._failed = failed
        self._budget = settings.store_timeout
        self._ttl = settings.cache_ttl
        self._failures = 0
        self._paused_until = 0.0

    def are_allowed(self) -> bool:
        """Tell whether there is no pause; after one, the first who asks tries for all."""
        if self._failures < PATIENCE:
            return True
        now = time.monotonic()
        if now < self._paused_until:
            return False
        self._paused_until = now + PAUSE
        return True

    async def fetch(
        self, collection: str, keys: list[bytes], dimension: int
    ) -> tuple[dict[bytes, Entry], bool]:
        """Look up keys; tells also whether every look-up was answered."""
        if len(keys) <= LOOKUP_POINTS:  # the usual case, without tasks of its own
            reply = await self._look_up(collection, keys, dimension)
            return reply or {}, reply is not None
        parts = [keys[i : i + LOOKUP_POINTS] for i in range(0, len(keys), LOOKUP_POINTS)]
        replies = await asyncio.gather(
            *(self._look_up(collection, part, dimension) for part in parts)
        )
        found: dict[bytes, Entry] = {}
        for reply in replies:
            found.update(reply or {})
        return found, None not in replies

    async def _look_up(
        self, collection: str, keys: list[bytes], dimension: int
    ) -> dict[bytes, Entry] | None:
        """Ask for up to LOOKUP_POINTS keys; None where that failed."""
        by_id = {point_id(key): key for key in keys}
        try:
            points = await self._qdrant.retrieve(collection, list(by_id), self._budget)
        except StoreError as error:
            self._count_failure(error)
            self._failed(collection, error)
            return None
        self._failures = 0
        found = {}
        for index, point in enumerate(points):
            if index % vectors.TURN == vectors.TURN - 1:
                await asyncio.sleep(0)
            key, entry = by_id.get(point.id), entry_of(point, dimension)
            if key is None or entry is None:
                STORE_ERRORS["wrong"].inc()
            elif not self._ttl or not is_old(entry, self._ttl):
                found[key] = entry
        return found

    def _count_failure(self, error: StoreError) -> None:
        STORE_ERRORS["read"].inc()
        if error.status == 404:
            return  # it answers, though it has no such collection
        self._failures += 1
        if self._failures >= PATIENCE:
            self._paused_until = time.monotonic() + PAUSE


def entry_of(point: Point, dimension: int) -> Entry | None:
    """Return a point's entry, or None where its vector is not ``dimension`` float32 numbers."""
    vector = vectors.checked(bytes(point.vector), dimension)
    if vector is None:
        return None
    payload = point.payload or Payload()
    return Entry(vector, payload.t, payload.n)
