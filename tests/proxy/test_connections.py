"""Replies of upstream and store over the lean client, and where that cannot take them."""

from __future__ import annotations

import asyncio

import pytest

from proxy_app.cache.qdrant import Qdrant, StoreError
from proxy_app.settings import Settings
from proxy_app.upstream.connections import Connections
from tests.stand_ins.bare_server import bare_server


async def test_an_upstream_that_speaks_http_1_0() -> None:
    """Its first reply is not understood; the inputs are sent again, and others by aiohttp alone."""
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n{}")
        requests += 1
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nX-Compute-Tokens: 7\r\n\r\n[]")

    async with bare_server(serve) as url:
        connections = Connections(Settings(upstream_url=url))
        for sent in (2, 3):
            reply = await connections.post("/embed", b"{}")
            assert (reply.status, reply.body) == (200, b"[]")
            assert reply.headers["x-compute-tokens"] == "7"
            assert requests == connections.count == sent
        await connections.close()


async def test_a_store_that_announces_an_endless_reply() -> None:
    """It makes misses, as every other failure of the store does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n")
        await reader.read()

    async with bare_server(serve) as url:
        store = Qdrant(Settings(qdrant_url=url))
        with pytest.raises(StoreError, match="too large"):
            await store.retrieve("collection", ["id"], 10)
        await store.close()
