"""The fast lane answers as aiohttp's way does, in order, and only what is plain."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy_app.http import lane
from proxy_app.http.heads import is_host
from proxy_app.http.lane import HEADS, Lane, Looked, Server, parsed_of
from proxy_app.routes import tei
from tests.faults.conftest import gauges
from tests.proxy.conftest import Proxy, StartProxy
from tests.proxy.test_both_ways import both_ways, status_of
from tests.proxy.test_both_ways import post as raw_post
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

    async def send(self, data: bytes, rest: float = 0.05) -> None:
        self._writer.write(data)
        await self._writer.drain()
        await asyncio.sleep(rest)  # a read of its own at the other end

    async def reply(self) -> Reply:
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 20)
        first, *lines = head.decode().strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await self._reader.readexactly(int(headers["content-length"]))
        return Reply(int(first.split()[1]), headers, body)

    async def ended(self) -> bool:
        return await asyncio.wait_for(self._reader.read(1), 20) == b""


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":")[-1]))
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


def post(text: str, *headers: str, path: str = "/embed") -> bytes:
    body = json.dumps({"inputs" if path == "/embed" else "input": text}).encode()
    head = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


async def by_lane(proxy: Proxy) -> float:
    """Return how many requests the fast lane has answered."""
    return (await gauges(proxy))["embedrack_lane_requests_total"]


async def test_both_ways_say_the_same(start: StartProxy) -> None:
    proxy = await start()
    async with connected(proxy.url) as line:
        for turn, path in enumerate(("/embed", "/v1/embeddings"), 1):
            await line.send(post("a", "Cache-Control: max-age=0", path=path))
            await line.reply()
            replies = []
            for headers in ((), ("Connection: keep-alive",)):  # the second is not plain
                await line.send(post("a", *headers, path=path))
                replies.append(await line.reply())
            fast, slow = replies
            assert (fast.status, fast.body) == (slow.status, slow.body)
            assert fast.headers["x-cache"] == slow.headers["x-cache"] == "hit; hits=1; misses=0"
            assert fast.headers.keys() == slow.headers.keys()
            assert await by_lane(proxy) == turn


async def test_a_hit_does_not_overtake_a_miss(start: StartProxy, tei: StandInTei) -> None:
    """Who sends a second request before the first is answered gets the answers in order."""
    proxy = await start()
    await proxy.embed(inputs="known")
    tei.slow["slow"] = 0.5
    async with connected(proxy.url) as line:
        for text in ("slow", "known", "known"):
            await line.send(post(text))
        replies = [await line.reply() for _ in range(3)]
    assert [reply.headers["x-cache"][:4] for reply in replies] == ["miss", "hit;", "hit;"]
    assert replies[0].body != replies[1].body == replies[2].body
    assert await by_lane(proxy) == 0


async def test_requests_that_do_not_come_one_by_one(start: StartProxy) -> None:
    proxy = await start()
    await proxy.embed(inputs="a")
    whole = post("a")
    async with connected(proxy.url) as line:
        await line.send(whole[:10])
        await line.send(whole[10:] + whole + whole[:60])
        await line.send(whole[60:])
        for _ in range(3):
            assert (await line.reply()).headers["x-cache"].startswith("hit")
        await line.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await line.reply()).body == b'{"status":"ok"}'
    assert await by_lane(proxy) == 0


async def test_a_body_that_follows_its_head(start: StartProxy) -> None:
    """As http.client, urllib3 and httpx send them."""
    proxy = await start()
    await proxy.embed(inputs="a")
    whole = post("a")
    body = whole.index(b"{")
    async with connected(proxy.url) as line:
        for cuts in ([body], [body], [body, body + 3], [body]):
            for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
                await line.send(whole[begin:end], rest=0.01)
            reply = await line.reply()
            assert reply.headers["x-cache"] == "hit; hits=1; misses=0"


async def test_a_body_that_is_long_in_coming(start: StartProxy) -> None:
    proxy = await start(client_timeout=1)
    await proxy.embed(inputs="a")
    whole = post("a")
    body = whole.index(b"{")
    async with connected(proxy.url) as line:
        await line.send(whole[:body], rest=0.3)
        await line.send(whole[body:])
        assert (await line.reply()).headers["x-cache"].startswith("hit")
        await line.send(whole[:body])
        assert (await line.reply()).status == 408
    async with connected(proxy.url) as line:
        await line.send(whole[:body], rest=0)  # and goes away
    assert (await proxy.get("/livez"))[0] == 200


async def test_what_is_not_plain_goes_the_other_way(start: StartProxy) -> None:
    proxy = await start()
    await proxy.embed(inputs="a")
    async with connected(proxy.url) as line:
        await line.send(post("a", "Cache-Control: no-cache"))
        assert (await line.reply()).headers["x-cache"].startswith("miss")
        await line.send(post("", "X-Empty: yes"))
        assert (await line.reply()).status == 400
        assert await by_lane(proxy) == 1  # the latter
        await line.send(post("a", "Connection: close"))
        assert (await line.reply()).headers["connection"] == "close"
        assert await line.ended()
    assert await by_lane(proxy) == 1


async def test_an_idle_connection_ends(start: StartProxy) -> None:
    proxy = await start(client_timeout=1)
    await proxy.embed(inputs="a")
    async with connected(proxy.url) as line:
        await line.send(post("a"))
        assert (await line.reply()).status == 200
        assert await by_lane(proxy) == 1
        assert await line.ended()


async def test_what_the_lane_could_not_encode_in_a_turn_is_counted_once(start: StartProxy) -> None:
    """The first answer in base64 takes two turns, which the lane does not have."""
    proxy = await start()
    texts = [str(number) for number in range(40)]
    await proxy.post(json.dumps({"input": texts}).encode(), "/v1/embeddings")
    body = json.dumps({"input": texts, "encoding_format": "base64"}).encode()
    for _ in range(3):
        assert (await proxy.post(body, "/v1/embeddings"))[0] == 200
    seen = await gauges(proxy)
    assert seen['embedrack_inputs_total{result="hit_l1"}'] == 120
    assert seen['embedrack_inputs_total{result="miss"}'] == 40
    assert seen['embedrack_requests_total{code="200",route="openai"}'] == 4
    assert seen["embedrack_lane_requests_total"] == 2


@asynccontextmanager
async def two_ways(reply: bytes = b"fast", keepalive_timeout: float = 75.0) -> AsyncIterator[Line]:
    """A connection to a server whose lane answers ``{}`` and whose other way anything."""

    async def slow(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        parsed = parsed_of(request, body)
        return web.Response(text="slow" if parsed is None else f"slow, parsed {parsed}")

    def fast(body: bytes) -> Looked:
        if body != b"{}":
            return None, body.decode()
        return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(reply), reply], None

    server = Server(web.Server(slow, keepalive_timeout=keepalive_timeout), Lane({"/": fast}))
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        async with connected(f"http://127.0.0.1:{port}") as line:
            yield line
    finally:
        listening.close()
        await server.shutdown(1)


PLAIN = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"


async def test_which_way_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "FOLLOWS", 10.0)
    async with two_ways() as line:

        async def way(*reads: bytes) -> bytes:
            for read in reads:
                await line.send(read)
            return (await line.reply()).body

        assert await way(PLAIN) == b"fast"
        assert await way(PLAIN[:-2], b"{}") == b"fast"
        assert await way(PLAIN[:-2], b"{", b"}") == b"slow"
        assert await way(PLAIN) == b"fast"
        assert await way(PLAIN[:-2], b"[]") == b"slow, parsed []"
        assert await way(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == b"slow"
        assert await way(PLAIN) == b"fast"
        long = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n" + b"[" * 400_000
        assert await way(long) == b"slow"
        assert await way(PLAIN) == b"fast"
        # Of two at once the first is answered, the rest is aiohttp's.
        assert await way(PLAIN + PLAIN) == b"slow"
        assert (await line.reply()).body == b"slow"
        assert await way(PLAIN) == b"slow"


async def test_an_answer_begins_the_keep_alive_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    real, ahead = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + ahead)
    async with two_ways(keepalive_timeout=1000) as line:
        for _ in range(3):
            await line.send(PLAIN)
            assert (await line.reply()).body == b"fast"
            ahead += 700
            await asyncio.sleep(0.05)  # the timers of that time
        await line.send(PLAIN)
        assert (await line.reply()).body == b"fast"
        ahead += 1001
        assert await line.ended()


async def test_a_client_that_takes_no_reply_gets_no_second_one_on_top() -> None:
    """What the lane wrote may lie in our memory: the next request waits for it, at aiohttp's."""
    big = b"fast" * 8_000_000
    async with two_ways(big) as line:
        for _ in range(4):
            await line.send(PLAIN)
        bodies = [(await line.reply()).body for _ in range(4)]
    assert [body[:4] for body in bodies] == [b"fast", b"slow", b"slow", b"slow"]
    assert len(bodies[0]) == len(big)


async def test_a_body_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A miss is looked at by the lane, and what it parsed goes with the request."""

    class Counting:
        def __init__(self, decoder: Any) -> None:
            self.decoder, self.bodies = decoder, 0

        def decode(self, body: bytes) -> Any:
            self.bodies += 1
            return self.decoder.decode(body)

    counting = Counting(tei._embed)
    monkeypatch.setattr(tei, "_embed", counting)
    async with both_ways(tmp_path) as ways:
        for lane_is_open, text in ((False, "a"), (True, "b"), (True, "b")):
            body = json.dumps({"inputs": [text, "c"]}).encode()
            [reply] = await ways.say([raw_post("/embed", body)], lane=lane_is_open)
            assert status_of(reply) == 200
    assert counting.bodies == 3


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nContent-Length: +2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\n folded\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nX: a\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nX: Content-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nno colon\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nX: \xe9\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\n" + b"X: y\r\n" * 64 + b"Content-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\n",
        b"",
    ],
)
def test_heads_that_tell_no_end(request_: bytes) -> None:
    assert Lane({"/": echo}).head(request_) is None


@pytest.mark.parametrize(
    ("header", "is_plain"),
    [
        ("X: y", True),
        ("authorization: Bearer a", True),
        ("Expect: 100-continue", False),
        ("connection: close", False),
        ("host: b", False),
        ("X: y\r\nX: z", False),
    ],
)
def test_special_heads(header: str, is_plain: bool) -> None:
    head = Lane({"/": echo}).head(
        f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n{header}\r\n\r\n{{}}".encode()
    )
    assert head is not None
    assert head.length == 2
    assert (head.answer is not None) == is_plain


def echo(body: bytes) -> Looked:
    return [body], None


@pytest.mark.parametrize("host", ["", "a", "a:80", "a.b_c-d", "127.0.0.1:", "[::1]:8080", "[v1.a]"])
def test_hosts(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize("host", ["a b", "a/b", "a:b", "a@b", "[::1", "::1", "a?b", "a#", "\xe9"])
def test_no_hosts(host: str) -> None:
    assert not is_host(host)


def test_heads_are_remembered_up_to_a_number() -> None:
    known = Lane({"/": echo})
    for number in range(3 * HEADS):
        head = known.head(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % number)
        assert head is not None
        assert head.length == number
    assert len(known._heads) <= HEADS


def test_the_lane_lists_what_it_uses_of_aiohttps_inside() -> None:
    """And aiohttp cannot become another minor version, in which it may be different."""
    used = {
        node.attr
        for node in ast.walk(ast.parse(Path(lane.__file__).read_text()))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and node.attr[1] != "_"
    }
    own = {"_access", "_heads", "_lane", "_read", "_routes"}
    mine = {name for name in vars(lane.Connection) if re.match("_[a-z]", name)}
    theirs = used - own - mine
    theirs |= {name for name in mine if hasattr(RequestHandler, name)}
    listed = set(re.findall(r"``(?:\w+\.)?(_[a-z]\w*)``", (lane.__doc__ or "").split("inside")[1]))
    assert listed - {"_make_server"} == theirs
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    major, minor = aiohttp.__version__.split(".")[:2]
    assert f'"aiohttp>={major}.{minor},<{major}.{int(minor) + 1}",' in project
