"""L2: Qdrant as a key-value store of embeddings, shared by all workers and hosts.

Plain REST, with the vectors cut out of replies as raw text: through ``exchange`` for look-ups,
through aiohttp for everything else. Nothing here fails a request: a store that is away, slow, or
wrong makes misses, and each is counted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import orjson

from proxy_app.cache.exchange import Exchange, NotPlainError
from proxy_app.cache.memory import is_old
from proxy_app.entries import vectors
from proxy_app.entries.collection import is_ours
from proxy_app.entries.entry import Entry
from proxy_app.entries.identity import Identity
from proxy_app.entries.keys import point_id
from proxy_app.settings import Settings
from proxy_app.telemetry.metrics import STORE_ERRORS

log = logging.getLogger("embedrack")

#: Points in one look-up.
LOOKUP_POINTS = 64
#: Failures in a row after which look-ups pause, and for how many seconds; one that fails after a
#: pause starts the next.
PATIENCE = 3
PAUSE = 1.0
#: Seconds for which an idle connection is kept: the server closes one after 5 by default.
KEEP = 4.0
#: Seconds for a question whether it is there, and for anything else that is no look-up.
ASK_TIMEOUT = 2.0
ADMIN_TIMEOUT = 10.0


class StoreError(Exception):
    """A call to Qdrant failed; ``status`` is 0 where no reply came."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class _Payload(msgspec.Struct):
    t: int = 0
    n: int = 0


class _Point(msgspec.Struct):
    id: str
    vector: msgspec.Raw
    payload: _Payload | None = None


class _Points(msgspec.Struct):
    result: list[_Point]


_points = msgspec.json.Decoder(_Points)


class Store:
    """One Qdrant server. ``problem`` is empty while it answers as it should."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.qdrant_url
        self._budget = settings.store_timeout
        self._prefix = settings.qdrant_collection
        self._ttl = settings.cache_ttl
        self._prepared: set[str] = set()
        self._current = ""
        self._failures = 0
        self._paused_until = 0.0
        self.problem = "Qdrant has not been asked yet"
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if settings.qdrant_api_key:
            headers["api-key"] = settings.qdrant_api_key
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

        self._exchange: Exchange | None = None
        if is_plain(self._url):
            self._exchange = Exchange(self._url, headers, KEEP)

    async def close(self) -> None:
        """Close all connections."""
        if self._exchange is not None:
            self._exchange.close()
        await self._session.close()

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
        if not self.is_prepared(identity) or not self._may_look_up():
            STORE_ERRORS["skipped"].inc()
            return {}, False
        if len(keys) <= LOOKUP_POINTS:  # the usual case, without tasks of its own
            reply = await self._look_up(identity, keys)
            return reply or {}, reply is not None
        parts = [keys[i : i + LOOKUP_POINTS] for i in range(0, len(keys), LOOKUP_POINTS)]
        replies = await asyncio.gather(*(self._look_up(identity, part) for part in parts))
        found: dict[bytes, Entry] = {}
        for reply in replies:
            found.update(reply or {})
        return found, None not in replies

    def _may_look_up(self) -> bool:
        """Tell whether there is no pause; after one, the first who asks tries for all."""
        if self._failures < PATIENCE:
            return True
        now = time.monotonic()
        if now < self._paused_until:
            return False
        self._paused_until = now + PAUSE
        return True

    async def write(self, collection: str, points: list[tuple[str, Entry]]) -> None:
        """Upsert entries (at least one) by their points' ids; StoreError where refused.

        Nothing is written into a collection that is not known to be exact. The present model's
        may become so (status 0: try again); another's will not (410).
        """
        if collection not in self._prepared:
            waits = collection == self._current or not self._current
            raise StoreError(f"collection {collection} is not prepared", 0 if waits else 410)
        parts = [b'{"points":[']
        for point, entry in points:
            parts += (
                b'{"id":"%b","vector":' % point.encode(),
                entry.vector,
                b',"payload":%b}' % payload(entry),
                b",",
            )
        parts[-1] = b"]}"
        path = f"/collections/{collection}/points?wait=false"
        try:
            await self._call("PUT", path, b"".join(parts), ADMIN_TIMEOUT)
        except StoreError as error:
            if error.status == 404:
                self._prepared.discard(collection)
            else:
                self.report(f"a write failed: {error}")
            raise

    async def prepare(self, identity: Identity) -> None:
        """Make sure that the model's collection exists and keeps float32 as they are.

        Raises StoreError with what is wrong.
        """
        name = self._current = self.collection(identity)
        path = f"/collections/{name}"
        try:
            reply = await self._call("GET", path, None, ASK_TIMEOUT)
        except StoreError as error:
            if error.status != 404:
                raise
            await self._create(path, identity.dimension)
            reply = await self._call("GET", path, None, ADMIN_TIMEOUT)
        refuse_inexact(name, reply, identity.dimension)
        self._prepared.add(name)

    def doubt(self, collection: str) -> None:
        """Look at a collection (empty: at all) again before using it; it may be gone."""
        if collection:
            self._prepared.discard(collection)
        else:
            self._prepared.clear()

    async def collections(self) -> list[str]:
        """Return the names of our collections; raises StoreError."""
        told = await self._result("GET", "/collections")
        names = [str(entry["name"]) for entry in told["collections"]]
        return [name for name in names if is_ours(name, self._prefix)]

    async def entries(self, collection: str) -> tuple[int, int]:
        """Return how many entries a collection has and how many numbers each; raises StoreError."""
        told = await self._result("GET", f"/collections/{collection}")
        return int(told["points_count"] or 0), int(told["config"]["params"]["vectors"]["size"])

    async def drop(self, collection: str) -> bool:
        """Delete a collection; tells whether it was there. Raises StoreError."""
        return bool(await self._result("DELETE", f"/collections/{collection}"))

    async def delete(self, collection: str, points: list[str]) -> None:
        """Delete points by their ids, also where none of them is there; raises StoreError."""
        path = f"/collections/{collection}/points/delete?wait=true"
        try:
            await self._result("POST", path, {"points": points})
        except StoreError as error:
            if error.status != 404:
                raise

    async def ask(self) -> None:
        """Ask whether Qdrant is ready; StoreError where not."""
        await self._call("GET", "/readyz", None, ASK_TIMEOUT)

    async def count(self, identity: Identity) -> int:
        """Return how many entries the model's collection has; StoreError where it cannot tell."""
        reply = await self._call("GET", f"/collections/{self.collection(identity)}", None, 1.0)
        try:
            return int(orjson.loads(reply)["result"]["points_count"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise StoreError("that is no collection of Qdrant's") from None

    async def _create(self, path: str, dimension: int) -> None:
        """Create the collection: a key-value store, exact (Dot), without a vector index."""
        body = {
            "vectors": {"size": dimension, "distance": "Dot", "on_disk": True},
            "hnsw_config": {"m": 0, "payload_m": 0},
            "optimizers_config": {"indexing_threshold": 0},
            "on_disk_payload": True,
        }
        index = {
            "field_name": "t",
            "field_schema": {"type": "integer", "lookup": False, "range": True},
        }
        try:
            await self._call("PUT", path, orjson.dumps(body), ADMIN_TIMEOUT)
        except StoreError as error:
            if error.status != 409:  # another worker was first
                raise
        await self._call("PUT", path + "/index?wait=true", orjson.dumps(index), ADMIN_TIMEOUT)

    async def _look_up(self, identity: Identity, keys: list[bytes]) -> dict[bytes, Entry] | None:
        """Ask for up to LOOKUP_POINTS keys; None where that failed."""
        by_id = {point_id(key): key for key in keys}
        collection = self.collection(identity)
        body = orjson.dumps({"ids": list(by_id), "with_vector": True, "with_payload": True})
        try:
            points = _points.decode(await self._points(collection, body)).result
        except (StoreError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._failed(collection, error)
            return None
        self._failures = 0
        found = {}
        for index, point in enumerate(points):
            if index % vectors.TURN == vectors.TURN - 1:
                await asyncio.sleep(0)
            key = by_id.get(point.id)
            vector = vectors.checked(bytes(point.vector), identity.dimension)
            if key is not None and vector is not None:
                told = point.payload or _Payload()
                entry = Entry(vector, told.t, told.n)
                if not self._ttl or not is_old(entry, self._ttl):
                    found[key] = entry
            else:
                STORE_ERRORS["wrong"].inc()
        return found

    async def _points(self, collection: str, body: bytes) -> bytes:
        path = f"/collections/{collection}/points"
        exchange = self._exchange
        if exchange is None:
            return await self._call("POST", path, body, self._budget)
        try:
            status, content = await exchange.post(path, body, self._budget)
        except NotPlainError as error:
            log.info("store: look-ups go the slower way: Qdrant's reply has %s", error)
            exchange.close()
            self._exchange = None
            return await self._call("POST", path, body, self._budget)
        except (asyncio.TimeoutError, OSError) as error:
            raise _store_error(error) from None
        if status != 200:
            raise _refusal(status, content)
        return content

    def _failed(self, collection: str, error: Exception) -> None:
        STORE_ERRORS["read"].inc()
        if isinstance(error, StoreError) and error.status == 404:
            self._prepared.discard(collection)
            return
        self._failures += 1
        self.report(f"a look-up failed: {error}")
        if self._failures >= PATIENCE:
            self._paused_until = time.monotonic() + PAUSE

    def report(self, problem: str) -> None:
        """Note the store's state and log its changes; "" is well."""
        if bool(problem) != bool(self.problem):
            if problem:
                log.warning("store: %s; serving without it", problem)
            else:
                log.info("store: Qdrant answers")
        self.problem = problem

    async def _result(self, method: str, path: str, body: object = None) -> Any:
        content = None if body is None else orjson.dumps(body)
        reply = await self._call(method, path, content, ADMIN_TIMEOUT)
        try:
            return orjson.loads(reply)["result"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise StoreError(f"{path}: that is no reply of Qdrant's") from None

    async def _call(self, method: str, path: str, body: bytes | None, seconds: float) -> bytes:
        try:
            try:
                return await self._once(method, path, body, seconds)
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # A kept-alive connection that the server had closed; any call may be repeated.
                return await self._once(method, path, body, seconds)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise _store_error(error) from None

    async def _once(self, method: str, path: str, body: bytes | None, seconds: float) -> bytes:
        async with self._session.request(
            method, self._url + path, data=body, timeout=timeout(seconds), allow_redirects=False
        ) as response:
            content = await response.read()
            if response.status != 200:
                raise _refusal(response.status, content)
            return content


@lru_cache(maxsize=8)
def timeout(seconds: float) -> aiohttp.ClientTimeout:
    """Return aiohttp's form of a time-out, which is not cheap to make."""
    return aiohttp.ClientTimeout(total=seconds)


def refuse_inexact(name: str, reply: bytes, dimension: int) -> None:
    """Raise StoreError where a collection would not give back the very float32 it was given."""
    try:
        params = orjson.loads(reply)["result"]["config"]["params"]["vectors"]
        size, distance = params["size"], params["distance"]
        datatype = params.get("datatype") or "float32"
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise StoreError(f"collection {name}: that is no collection of Qdrant's") from None
    if (size, distance, datatype) != (dimension, "Dot", "float32"):
        raise StoreError(
            f"collection {name} has {size} numbers, {distance}, {datatype}; {dimension}, Dot, "
            "float32 are needed: drop it, or set another EMBEDRACK_QDRANT_COLLECTION"
        )


def payload(entry: Entry) -> bytes:
    """Write what is kept beside a vector: ``t``, and ``n`` where the tokens are known."""
    if entry.tokens:
        return b'{"t":%d,"n":%d}' % (entry.written, entry.tokens)
    return b'{"t":%d}' % entry.written


def is_plain(url: str) -> bool:
    """Tell whether an exchange can be had with a server: without TLS, without a password."""
    parts = urlsplit(url)
    return parts.scheme == "http" and "@" not in parts.netloc


def _refusal(status: int, content: bytes) -> StoreError:
    text = content[:200].decode("utf-8", "replace")
    return StoreError(f"Qdrant answered {status}: {text}", status)


def _store_error(error: Exception) -> StoreError:
    if isinstance(error, asyncio.TimeoutError):
        return StoreError("Qdrant did not answer in time")
    return StoreError(f"Qdrant cannot be reached: {error or type(error).__name__}")
