"""Requests that are passed on to TEI: the same bytes there and back, whatever their size."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from tests.faults.conftest import connect, resident
from tests.proxy.conftest import Proxy, listening, serving
from tests.stand_ins.tei import StandInTei

MIB = 2**20
TEXT = b'{"inputs":"' + b"a text, again and again " * 200 + b'"}'


class Routes:
    """Routes of an upstream beside those that the proxy answers itself."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def app(self) -> web.Application:
        app = StandInTei().app()
        app.router.add_route("*", "/headers", self.headers)
        app.router.add_post("/length", self.length)
        app.router.add_get("/zipped", self.zipped)
        app.router.add_get("/large", self.large)
        app.router.add_get("/broken", self.broken)
        return app

    async def headers(self, request: web.Request) -> web.Response:
        """Tell what arrived, with a header that concerns this connection alone."""
        reply = {"Connection": "X-Hop, keep-alive", "X-Hop": "one", "X-End": "two"}
        return web.json_response({n.lower(): v for n, v in request.headers.items()}, headers=reply)

    async def length(self, request: web.Request) -> web.Response:
        """Tell what the body says and how it says that it is encoded."""
        body = await request.content.read()
        return web.json_response([request.headers.get("Content-Encoding"), body == TEXT])

    async def zipped(self, _: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(TEXT), headers={"Content-Encoding": "gzip"})

    async def large(self, request: web.Request) -> web.StreamResponse:
        """Send as many MiB as the query says."""
        count = int(request.query["mib"])
        response = web.StreamResponse()
        if "sized" in request.query:
            response.content_length = count * MIB
        await response.prepare(request)
        try:
            for _ in range(count):
                await response.write(bytes(MIB))
        finally:
            self.ended.set()
        return response

    async def broken(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(bytes(MIB))
        assert request.transport is not None
        request.transport.abort()
        return response


@asynccontextmanager
async def passing(**settings: object) -> AsyncIterator[tuple[Proxy, Routes]]:
    routes = Routes()
    async with listening(routes.app()) as upstream, serving(upstream, "", **settings) as proxy:
        await proxy.until(proxy.is_ready)
        yield proxy, routes


async def test_headers_that_concern_one_connection_stay_there() -> None:
    """Those that `Connection` names too, in both directions (RFC 9110, 7.6.1)."""
    sent = {"Connection": "x-hop , keep-alive", "X-Hop": "one", "X-End": "two", "TE": "trailers"}
    async with (
        passing() as (proxy, _),
        proxy.session.get(proxy.url + "/headers", headers=sent) as reply,
    ):
        arrived = await reply.json()
        assert reply.headers["X-End"] == "two"
        assert "X-Hop" not in reply.headers
    assert arrived["x-end"] == "two"
    assert not arrived.keys() & {"x-hop", "te"}


async def test_a_compressed_body_is_sent_as_what_it_is() -> None:
    """The proxy has decoded it by then, and says so."""
    async with passing() as (proxy, _):
        for body, encoding in ((TEXT, None), (gzip.compress(TEXT), "gzip")):
            headers = {} if encoding is None else {"Content-Encoding": encoding}
            async with proxy.session.post(
                proxy.url + "/length", data=body, headers=headers
            ) as reply:
                assert (reply.status, await reply.json()) == (200, [None, True])


async def test_a_compressed_reply_comes_as_it_is() -> None:
    async with (
        passing() as (proxy, _),
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(proxy.url + "/zipped") as reply,
    ):
        assert reply.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(await reply.read()) == TEXT


@pytest.mark.parametrize("sized", ["&sized", ""], ids=["sized", "chunked"])
async def test_a_large_reply_is_passed_on_as_it_comes(sized: str) -> None:
    async with passing() as (proxy, _):
        before = most = resident(proxy)
        size = 0
        async with proxy.session.get(proxy.url + "/large?mib=200" + sized) as reply:
            assert reply.headers.get("Content-Length") == (str(200 * MIB) if sized else None)
            async for part in reply.content.iter_any():
                if (size + len(part)) // (8 * MIB) > size // (8 * MIB):
                    most = max(most, resident(proxy))
                size += len(part)
        print(f"200 MiB: memory {before:.0f}, at most {most:.0f} MiB")
        assert size == 200 * MIB
        assert most < before + 60


async def test_a_client_that_does_not_read_is_left() -> None:
    async with (
        passing(client_timeout=1) as (proxy, routes),
        connect(proxy, 65536) as (_, writer),
    ):
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        writer.write(b"GET /large?mib=100 HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(routes.ended.wait(), 60)


async def test_a_reply_that_breaks_off_does_so_for_the_client() -> None:
    async with passing() as (proxy, _):
        async with proxy.session.get(proxy.url + "/broken") as reply:
            assert reply.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await reply.read()
        status, text = await proxy.get("/headers")
        assert (status, "host" in json.loads(text)) == (200, True)
