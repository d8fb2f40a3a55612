"""The fast lane answers as aiohttp's way does, in order, and only what is plain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from proxy_app.lane import Lane, head_end_of
from tests.proxy.conftest import Proxy, StartProxy
from tests.stand_ins.tei import StandInTei


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Line:
    """One connection, to send any bytes on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
        await asyncio.sleep(0.05)  # a read of its own at the other end

    async def reply(self) -> Reply:
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 20)
        first, *lines = head.decode().strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await self._reader.readexactly(int(headers["content-length"]))
        return Reply(int(first.split()[1]), headers, body)

    async def ended(self) -> bool:
        return await asyncio.wait_for(self._reader.read(1), 20) == b""


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rsplit(":")[-1]))
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


def post(text: str, *headers: str, path: str = "/embed") -> bytes:
    body = json.dumps({"inputs" if path == "/embed" else "input": text}).encode()
    head = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


async def test_both_ways_say_the_same(start: StartProxy) -> None:
    proxy = await start()
    async with connected(proxy) as line:
        for path in ("/embed", "/v1/embeddings"):
            await line.send(post("a", path=path))
            await line.reply()
            replies = []
            for headers in ((), ("Connection: keep-alive",)):  # the second is not plain
                await line.send(post("a", *headers, path=path))
                replies.append(await line.reply())
            fast, slow = replies
            assert (fast.status, fast.body) == (slow.status, slow.body)
            assert fast.headers["x-cache"] == slow.headers["x-cache"] == "hit; hits=1; misses=0"
            assert fast.headers.keys() == slow.headers.keys()


async def test_a_hit_does_not_overtake_a_miss(start: StartProxy, tei: StandInTei) -> None:
    """Who sends a second request before the first is answered gets the answers in order."""
    proxy = await start()
    await proxy.embed(inputs="known")
    tei.slow["slow"] = 0.5
    async with connected(proxy) as line:
        for text in ("slow", "known", "known"):
            await line.send(post(text))
        replies = [await line.reply() for _ in range(3)]
    assert [reply.headers["x-cache"][:4] for reply in replies] == ["miss", "hit;", "hit;"]
    assert replies[0].body != replies[1].body == replies[2].body


async def test_requests_that_do_not_come_one_by_one(start: StartProxy) -> None:
    proxy = await start()
    await proxy.embed(inputs="a")
    whole = post("a")
    async with connected(proxy) as line:
        await line.send(whole[:10])
        await line.send(whole[10:] + whole + whole[:60])
        await line.send(whole[60:])
        for _ in range(3):
            assert (await line.reply()).headers["x-cache"].startswith("hit")
        await line.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await line.reply()).body == b'{"status":"ok"}'


async def test_what_is_not_plain_goes_the_other_way(start: StartProxy) -> None:
    proxy = await start()
    await proxy.embed(inputs="a")
    async with connected(proxy) as line:
        await line.send(post("a", "Cache-Control: no-cache"))
        assert (await line.reply()).headers["x-cache"].startswith("miss")
        await line.send(post("", "X-Empty: yes"))
        assert (await line.reply()).status == 400
        await line.send(post("a", "Connection: close"))
        assert (await line.reply()).headers["connection"] == "close"
        assert await line.ended()


async def test_keys_are_asked_for(start: StartProxy) -> None:
    proxy = await start(api_keys="alice:" + "0" * 64)
    async with connected(proxy) as line:
        for _ in range(2):
            await line.send(post("a"))
            assert (await line.reply()).status == 401


async def test_an_idle_connection_ends(start: StartProxy) -> None:
    proxy = await start(client_timeout=1)
    await proxy.embed(inputs="a")
    async with connected(proxy) as line:
        await line.send(post("a"))
        assert (await line.reply()).status == 200
        assert await line.ended()


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /embed HTTP/1.1\r\nContent-Length: 2\r\n\r\n{",
        b"POST /embed HTTP/1.1\r\nContent-Length: 1\r\n\r\n{}",
        b"POST /embed HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /embed HTTP/1.1\r\nContent-Length: +2\r\n\r\n{}",
        b"POST /embed HTTP/1.1\r\n\r\n{}",
        b"POST /embed HTTP/1.1\r\nX: Content-Length: 2\r\n\r\n{}",
        b"",
    ],
)
def test_no_request_or_not_one(request_: bytes) -> None:
    assert head_end_of(request_) == -1


@pytest.mark.parametrize(
    "header",
    ["authorization: Bearer a", "TRANSFER-ENCODING: chunked", "Expect: 100-continue", " folded"],
)
def test_special_heads(header: str) -> None:
    lane = Lane({"/embed": lambda body: body})
    plain = b"POST /embed HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
    assert lane.answer(plain, head_end_of(plain)) == b"{}"
    special = f"POST /embed HTTP/1.1\r\nContent-Length: 2\r\n{header}\r\n\r\n{{}}".encode()
    assert lane.answer(special, head_end_of(special)) is None
    lane.is_open = False
    assert lane.answer(plain, head_end_of(plain)) is None
