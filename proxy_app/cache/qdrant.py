"""Qdrant's calls, as plain REST: over ``net.exchange`` for look-ups, over aiohttp for all else.

Vectors are cut out of replies, and put into upserts, as the raw text that they are.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from typing import Any

import aiohttp
import msgspec
import orjson

from proxy_app.entries.entry import Entry
from proxy_app.net.exchange import Exchange, NotPlainError, TooLargeError, is_plain
from proxy_app.settings import Settings

log = logging.getLogger("embedrack")

#: Seconds for which an idle connection is kept: the server closes one after 5 by default.
KEEP = 4.0
#: Seconds for a question whether it is there, for a count on the status page, and for anything else
#: that is no look-up.
ASK_TIMEOUT = 2.0
COUNT_TIMEOUT = 1.0
ADMIN_TIMEOUT = 10.0


class StoreError(Exception):
    """A call to Qdrant failed; ``status`` is 0 where no reply came."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Payload(msgspec.Struct):
    """What is kept beside a vector: when it was computed, and its tokens, 0 if not known."""

    t: int = 0
    n: int = 0


class Point(msgspec.Struct):
    """One point of a look-up's reply; the vector is raw JSON, and may be anything."""

    id: str
    vector: msgspec.Raw
    payload: Payload | None = None


class _Points(msgspec.Struct):
    result: list[Point]


_points = msgspec.json.Decoder(_Points)


class Qdrant:
    """One server. Every call raises StoreError where it fails."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.qdrant_url
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

    async def retrieve(self, collection: str, ids: list[str], seconds: float) -> list[Point]:
        """Return those points that are there, in any order."""
        body = orjson.dumps({"ids": ids, "with_vector": True, "with_payload": True})
        reply = await self._retrieve(f"/collections/{collection}/points", body, seconds)
        try:
            return _points.decode(reply).result
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise StoreError(f"a look-up's reply is none of Qdrant's: {error}") from None

    async def upsert(self, collection: str, points: list[tuple[str, Entry]]) -> None:
        """Queue entries (at least one) to be stored by their points' ids."""
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
        await self._call("PUT", path, b"".join(parts), ADMIN_TIMEOUT)

    async def delete(self, collection: str, points: list[str]) -> None:
        """Delete points by their ids, also where none of them is there, and wait for it."""
        path = f"/collections/{collection}/points/delete?wait=true"
        try:
            await self._result("POST", path, {"points": points})
        except StoreError as error:
            if error.status != 404:
                raise

    async def ask(self) -> None:
        """Ask whether the server is ready."""
        await self._call("GET", "/readyz", None, ASK_TIMEOUT)

    async def names(self) -> list[str]:
        """Return the names of all collections, ours and others'."""
        reply = await self._result("GET", "/collections")
        return [str(entry["name"]) for entry in reply["collections"]]

    async def describe(self, collection: str, seconds: float = ADMIN_TIMEOUT) -> Any:
        """Return what Qdrant says of a collection."""
        return await self._result("GET", f"/collections/{collection}", seconds=seconds)

    async def create(self, collection: str, dimension: int) -> None:
        """Create a collection: a key-value store, exact (Dot), without a vector index."""
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
        path = f"/collections/{collection}"
        try:
            await self._call("PUT", path, orjson.dumps(body), ADMIN_TIMEOUT)
        except StoreError as error:
            if error.status != 409:  # another worker was first
                raise
        await self._call("PUT", path + "/index?wait=true", orjson.dumps(index), ADMIN_TIMEOUT)

    async def drop(self, collection: str) -> bool:
        """Delete a collection; tells whether it was there."""
        return bool(await self._result("DELETE", f"/collections/{collection}"))

    async def _retrieve(self, path: str, body: bytes, seconds: float) -> bytes:
        exchange = self._exchange
        if exchange is None:
            return await self._call("POST", path, body, seconds)
        try:
            reply = await exchange.post(path, body, seconds)
        except NotPlainError as error:
            log.info("store: look-ups go the slower way: Qdrant's reply has %s", error)
            exchange.close()
            self._exchange = None
            return await self._call("POST", path, body, seconds)
        except (asyncio.TimeoutError, OSError, TooLargeError) as error:
            raise _store_error(error) from None
        if reply.status != 200:
            raise _refusal(reply.status, reply.body)
        return reply.body

    async def _result(
        self, method: str, path: str, body: object = None, seconds: float = ADMIN_TIMEOUT
    ) -> Any:
        content = None if body is None else orjson.dumps(body)
        reply = await self._call(method, path, content, seconds)
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


def payload(entry: Entry) -> bytes:
    """Write what is kept beside a vector: ``t``, and ``n`` where the tokens are known."""
    if entry.tokens:
        return b'{"t":%d,"n":%d}' % (entry.written, entry.tokens)
    return b'{"t":%d}' % entry.written


def _refusal(status: int, content: bytes) -> StoreError:
    text = content[:200].decode("utf-8", "replace")
    return StoreError(f"Qdrant answered {status}: {text}", status)


def _store_error(error: Exception) -> StoreError:
    if isinstance(error, asyncio.TimeoutError):
        return StoreError("Qdrant did not answer in time")
    if isinstance(error, TooLargeError):
        return StoreError("Qdrant's reply is too large for a look-up's")
    return StoreError(f"Qdrant cannot be reached: {error or type(error).__name__}")
