"""L2: Qdrant as a key-value store of embeddings, shared by all workers and hosts.

A collection holds the entries of one namespace. It is used once it is known to exist and to keep
float32 as they are. Nothing here fails a request: a store that is away, slow, or wrong makes
misses, and each is counted.
"""

from __future__ import annotations

import logging
from typing import Any

from proxy_app.cache.lookups import Lookups
from proxy_app.cache.qdrant import ASK_TIMEOUT, COUNT_TIMEOUT, Qdrant, StoreError
from proxy_app.entries.collection import is_ours
from proxy_app.entries.entry import Entry
from proxy_app.entries.identity import Identity
from proxy_app.settings import Settings
from proxy_app.telemetry.metrics import STORE_ERRORS

log = logging.getLogger("embedrack")


class Store:
    """One worker's view of the store. ``problem`` is empty while it answers as it should."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.qdrant_collection
        self._qdrant = Qdrant(settings)
        self._lookups = Lookups(settings, self._qdrant, self._look_up_failed)
        self._prepared: set[str] = set()
        self._current = ""
        self.problem = "Qdrant has not been asked yet"

    async def close(self) -> None:
        """Close all connections."""
        await self._qdrant.close()

    def collection(self, identity: Identity) -> str:
        """Name the collection of a model."""
        return identity.collection(self._prefix)

    def is_prepared(self, identity: Identity) -> bool:
        """Tell whether the model's collection is known to exist and to be exact."""
        return self.collection(identity) in self._prepared

    async def fetch(self, identity: Identity, keys: list[bytes]) -> tuple[dict[bytes, Entry], bool]:
        """Look up keys within the budget; what is absent, late or wrong is missing from the result.

        Also tells whether every look-up was answered, so that it makes sense to ask for more.
        """
        collection = self.collection(identity)
        if collection not in self._prepared or not self._lookups.are_allowed():
            STORE_ERRORS["skipped"].inc()
            return {}, False
        return await self._lookups.fetch(collection, keys, identity.dimension)

    async def write(self, collection: str, points: list[tuple[str, Entry]]) -> None:
        """Upsert entries (at least one) by their points' ids; StoreError where refused.

        Nothing is written into a collection that is not known to be exact. The present model's
        may become so (status 0: try again); another's will not (410).
        """
        if collection not in self._prepared:
            waits = collection == self._current or not self._current
            raise StoreError(f"collection {collection} is not prepared", 0 if waits else 410)
        try:
            await self._qdrant.upsert(collection, points)
        except StoreError as error:
            if error.status == 404:
                self._prepared.discard(collection)
            else:
                self.report(f"a write failed: {error}")
            raise

    async def delete(self, collection: str, points: list[str]) -> None:
        """Delete points by their ids, also where none of them is there; raises StoreError."""
        await self._qdrant.delete(collection, points)

    async def prepare(self, identity: Identity) -> None:
        """Make sure that the model's collection exists and keeps float32 as they are.

        Raises StoreError with what is wrong.
        """
        name = self._current = self.collection(identity)
        try:
            described = await self._qdrant.describe(name, ASK_TIMEOUT)
        except StoreError as error:
            if error.status != 404:
                raise
            await self._qdrant.create(name, identity.dimension)
            described = await self._qdrant.describe(name)
        refuse_inexact(name, described, identity.dimension)
        self._prepared.add(name)

    def doubt(self, collection: str) -> None:
        """Look at a collection (empty: at all) again before using it; it may be gone."""
        if collection:
            self._prepared.discard(collection)
        else:
            self._prepared.clear()

    async def collections(self) -> list[str]:
        """Return the names of our collections; raises StoreError."""
        return [name for name in await self._qdrant.names() if is_ours(name, self._prefix)]

    async def entries(self, collection: str) -> tuple[int, int]:
        """Return how many entries a collection has and how many numbers each; raises StoreError."""
        described = await self._qdrant.describe(collection)
        try:
            size = described["config"]["params"]["vectors"]["size"]
            return int(described["points_count"] or 0), int(size)
        except (KeyError, TypeError, ValueError):
            raise StoreError(f"{collection} is no collection of Qdrant's") from None

    async def count(self, identity: Identity) -> int:
        """Return how many entries the model's collection has; StoreError where it cannot tell."""
        described = await self._qdrant.describe(self.collection(identity), COUNT_TIMEOUT)
        try:
            return int(described["points_count"])
        except (KeyError, TypeError, ValueError):
            raise StoreError("that is no collection of Qdrant's") from None

    async def drop(self, collection: str) -> bool:
        """Delete a collection; tells whether it was there. Raises StoreError."""
        return await self._qdrant.drop(collection)

    async def ask(self) -> None:
        """Ask whether Qdrant is ready; StoreError where not."""
        await self._qdrant.ask()

    def report(self, problem: str) -> None:
        """Note the store's state and log its changes; "" is well."""
        if bool(problem) != bool(self.problem):
            if problem:
                log.warning("store: %s; serving without it", problem)
            else:
                log.info("store: Qdrant answers")
        self.problem = problem

    def _look_up_failed(self, collection: str, error: StoreError) -> None:
        if error.status == 404:
            self._prepared.discard(collection)
        else:
            self.report(f"a look-up failed: {error}")


def refuse_inexact(name: str, described: Any, dimension: int) -> None:
    """Raise StoreError where a collection would not give back the very float32 it was given."""
    try:
        params = described["config"]["params"]["vectors"]
        size, distance = params["size"], params["distance"]
        datatype = params.get("datatype") or "float32"
    except (KeyError, TypeError, AttributeError):
        raise StoreError(f"collection {name}: that is no collection of Qdrant's") from None
    if (size, distance, datatype) != (dimension, "Dot", "float32"):
        raise StoreError(
            f"collection {name} has {size} numbers, {distance}, {datatype}; {dimension}, Dot, "
            "float32 are needed: drop it, or set another EMBEDRACK_QDRANT_COLLECTION"
        )
