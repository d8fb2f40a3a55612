"""A plain request over a kept connection: what is understood, and what is left to others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from proxy_app.net.exchange import (
    Exchange,
    NotPlainError,
    PartialError,
    TooLargeError,
    UnreachableError,
)
from tests.cancelling import Cancellation
from tests.stand_ins.bare_server import bare_server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Answers the n-th request with the n-th reply, the pieces of which are apart."""

    def __init__(self, *replies: list[bytes]) -> None:
        self._replies = list(replies)
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.hang_up = False
        self.asked = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, _, length = head.lower().partition(b"content-length: ")
                body = await reader.readexactly(int(length.split(b"\r\n")[0] or b"0"))
                self.requests.append(head + body)
                self.asked.set()
                pieces = self._replies.pop(0)
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.02)
                if self.hang_up or not pieces:
                    return
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def serving(server: Server, keep: float = 60) -> AsyncIterator[Exchange]:
    async with bare_server(server) as url:
        exchange = Exchange(f"{url}/store/", {"api-key": "k"}, keep)
        try:
            yield exchange
        finally:
            exchange.close()


async def asked(exchange: Exchange, body: bytes = b"") -> tuple[int, bytes]:
    """Send a POST; gives the reply's status and body."""
    reply = await exchange.post("/points", body, 10)
    return reply.status, reply.body


async def test_a_connection_is_kept() -> None:
    server = Server([OK], [b"HTTP/1.1 404 Not Found\r\ncontent-length:0\r\n\r\n"], [OK])
    async with serving(server) as exchange:
        assert await asked(exchange, b"[1]") == (200, b"{}")
        assert await asked(exchange, b"[1]") == (404, b"")
        assert await asked(exchange, b"[1]") == (200, b"{}")
    assert server.connections == 1
    head, body = server.requests[0].split(b"\r\n\r\n")
    assert head.startswith(b"POST /store/points HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"api-key: k" in head
    assert body == b"[1]"


async def test_a_reply_without_a_body() -> None:
    server = Server([b"HTTP/1.1 204 No Content\r\n\r\n"], [OK])
    async with serving(server) as exchange:
        assert await asked(exchange) == (204, b"")
        assert await asked(exchange) == (200, b"{}")
    assert server.connections == 1


async def test_a_reply_in_pieces() -> None:
    server = Server([OK[:5], OK[5:-3], OK[-3:-1], OK[-1:]], [OK])
    async with serving(server) as exchange:
        for _ in range(2):
            assert await asked(exchange) == (200, b"{}")
    assert server.connections == 1


async def test_two_at_once_have_a_connection_each() -> None:
    server = Server([OK[:5], OK[5:]], [OK[:9], OK[9:]], [OK])
    async with serving(server) as exchange:
        both = await asyncio.gather(*(asked(exchange) for _ in range(2)))
        assert both == [(200, b"{}")] * 2
        assert await asked(exchange) == (200, b"{}")
    assert server.connections == 2


async def test_a_connection_that_the_server_closed_meanwhile() -> None:
    server = Server([OK], [OK])
    server.hang_up = True
    async with serving(server) as exchange:
        for _ in range(2):
            assert await asked(exchange) == (200, b"{}")
    assert server.connections == 2


async def test_one_that_was_idle_for_long_is_not_used() -> None:
    server = Server([OK], [OK])
    async with serving(server, keep=0.01) as exchange:
        for _ in range(2):
            assert await asked(exchange) == (200, b"{}")
            await asyncio.sleep(0.02)
    assert server.connections == 2


async def test_the_server_ends_it_with_its_reply() -> None:
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    server = Server([closing], [OK])
    async with serving(server) as exchange:
        for _ in range(2):
            assert await asked(exchange) == (200, b"{}")
    assert server.connections == 2


async def test_a_connection_that_the_server_says_it_closes_and_does_not() -> None:
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    server = Server([closing])
    async with serving(server) as exchange:
        assert await asked(exchange) == (200, b"{}")
        for _ in range(100):
            if not server.open:
                break
            await asyncio.sleep(0.01)
        assert not server.open


async def test_what_is_under_way_is_closed_after_its_reply() -> None:
    server = Server([OK[:5], OK[5:]])
    async with serving(server) as exchange:
        asking = asyncio.create_task(asked(exchange))
        await server.asked.wait()
        exchange.close()
        assert await asking == (200, b"{}")
        for _ in range(100):
            if not server.open:
                break
            await asyncio.sleep(0.01)
        assert not server.open


async def test_a_late_reply_is_nobodys() -> None:
    server = Server([OK[:5], *[b""] * 20, OK[5:]], [OK])
    async with serving(server) as exchange:
        with pytest.raises(asyncio.TimeoutError):
            await exchange.post("/points", b"", 0.1)
        assert await asked(exchange) == (200, b"{}")
    assert server.connections == 2


async def test_who_no_longer_waits_leaves_no_reply_behind() -> None:
    server = Server([OK[:5], *[b""] * 5, OK[5:]], [OK])
    async with serving(server) as exchange:
        waiting = asyncio.create_task(asked(exchange))
        await server.asked.wait()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert await asked(exchange) == (200, b"{}")
    assert server.connections == 2


async def test_a_server_that_is_away_or_ends_in_the_middle() -> None:
    server = Server([OK[:-1]])
    server.hang_up = True
    async with serving(server) as exchange:
        with pytest.raises(OSError, match="ended early"):
            await asked(exchange)
    with pytest.raises(UnreachableError):
        await asked(exchange)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"more",
        b"SSH-2.0\r\n\r\n",
        b"x" * 20_000,
    ],
)
async def test_what_is_left_to_others(reply: bytes) -> None:
    async with serving(Server([reply])) as exchange:
        with pytest.raises(NotPlainError):
            await asked(exchange)


@pytest.mark.parametrize("late", [False, True], ids=["it waits", "its reply is there"])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_who_is_cancelled_leaves_no_connection(run: Callable[..., None], late: bool) -> None:
    """Cancelled at every await, of a first request and of one over a kept connection."""

    async def left(number: int, before: int) -> int | None:
        """Cancel at one await; returns the connections that are left, None beyond the last."""
        server = Server(*[[OK[:9], OK[9:]] for _ in range(before + 1)])
        async with serving(server) as exchange:
            for _ in range(before):
                await asked(exchange)
            cancellation = Cancellation(number, late)
            with cancellation:
                asking = asyncio.create_task(cancellation.of(asked(exchange)))
                [reply] = await asyncio.gather(asking, return_exceptions=True)
        for _ in range(100):
            if not server.open:
                break
            await asyncio.sleep(0.01)
        if not cancellation.happened:
            assert reply == (200, b"{}")
            return None
        assert isinstance(reply, asyncio.CancelledError)
        return server.open

    async def at_every_await() -> None:
        for before in (0, 1):
            seen: list[int] = []
            while (here := await left(len(seen) + 1, before)) is not None:
                seen.append(here)
            print(f"connections left, by await, after {before} requests: {seen}")
            assert seen
            assert not any(seen)

    run(at_every_await())


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"],
        [CHUNKED, b"2", b"\r", b"\n{", b"}\r", b"\n0;last\r\n\r", b"\n"],
        [CHUNKED + b"000002 ; a=b\r\n{}\r\n0", b"\r\n\r\n"],
    ],
)
async def test_a_reply_in_chunks(pieces: list[bytes]) -> None:
    server = Server(pieces, [OK])
    async with serving(server) as exchange:
        for _ in range(2):
            assert await asked(exchange) == (200, b"{}")
    assert server.connections == 1


@pytest.mark.parametrize("ending", [b"x\r\n", b"2\r\n{}xy", b"0\r\nTrailer: a\r\n\r\n", b"-1\r\n"])
async def test_chunks_that_are_not_understood(ending: bytes) -> None:
    async with serving(Server([CHUNKED + ending])) as exchange:
        with pytest.raises(NotPlainError):
            await asked(exchange)


@pytest.mark.parametrize(
    "reply",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n", CHUNKED + b"a\r\n0123456789\r\n1\r\n"],
)
async def test_a_reply_that_is_too_large(reply: bytes) -> None:
    async with serving(Server([reply])) as exchange:
        with pytest.raises(TooLargeError):
            await exchange.post("/points", b"", 10, 10)


async def test_what_a_server_may_have_seen_is_sent_again_only_where_that_is_wanted() -> None:
    for again in (False, True):
        server = Server([OK], [], [OK])
        async with serving(server) as exchange:
            assert await asked(exchange) == (200, b"{}")
            if again:
                assert await asked(exchange) == (200, b"{}")
            else:
                with pytest.raises(ConnectionError):
                    await exchange.post("/points", b"", 10, again=False)
            assert len(server.requests) == 2 + again


async def test_a_reply_that_breaks_off_and_a_server_that_is_not_there() -> None:
    server = Server([OK[:-1]])
    server.hang_up = True
    async with serving(server) as exchange:
        with pytest.raises(PartialError):
            await asked(exchange)
    with pytest.raises(UnreachableError):
        await asked(exchange)
    assert exchange.made == 1


async def test_the_fields_of_a_reply() -> None:
    head = b"HTTP/1.1 200 OK\r\nX-Compute-Tokens: 7\r\nContent-Length:0\r\nEmpty:\r\n\r\n"
    async with serving(Server([head])) as exchange:
        reply = await exchange.get("/info", 10)
    assert reply.fields() == {"x-compute-tokens": "7", "content-length": "0", "empty": ""}
