"""Clients that are slow, half gone, or too many: the rest is served."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import struct
import time
from contextlib import AsyncExitStack, suppress

from tests.faults.conftest import connect, is_held, resident, sockets
from tests.faults.test_suspects import embed_anew
from tests.proxy.conftest import Proxy, StartProxy
from tests.stand_ins.tei import StandInTei

HEAD = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"inputs":"text"}'


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def serves_others(proxy: Proxy) -> float:
    """Embed a text over a connection of its own; returns the milliseconds that it took."""
    started = time.perf_counter()
    # With a short `client_timeout` the proxy may close a kept one just when it is used again.
    status, text = await embed_anew(proxy, ["somebody else's"])
    assert (status, len(json.loads(text))) == (200, 1)
    return (time.perf_counter() - started) * 1000


async def test_heads_and_bodies_that_do_not_come(start: StartProxy) -> None:
    """200 of each: a head byte by byte, a body that stops, one that drips, nothing at all."""
    proxy = await start(store=False, client_timeout=3)
    async with AsyncExitStack() as stack:
        heads: list[Connection] = []
        bodies: list[Connection] = []
        drips: list[Connection] = []
        idle: list[Connection] = []
        for kind in (heads, bodies, drips, idle):
            for _ in range(200):
                reader, writer = await stack.enter_async_context(connect(proxy))
                # At once: a connection that says nothing for so long is closed without a reply.
                if kind is bodies or kind is drips:
                    writer.write(HEAD + b"Content-Length: 200000\r\n\r\n")
                kind.append((reader, writer))
        replies = {
            writer: asyncio.create_task(asyncio.wait_for(reader.readline(), 60))
            for reader, writer in bodies + drips
        }

        async def dripping() -> None:
            while True:
                for _, writer in heads + drips:
                    replied = writer in replies and replies[writer].done()
                    if not replied and not writer.is_closing():
                        writer.write(b"X")
                    # Read a reply before writing more: a reset would discard it.
                    await asyncio.sleep(0)
                await asyncio.sleep(0.1)

        drip = asyncio.create_task(dripping())
        took = [await serves_others(proxy) for _ in range(10)]
        print(f"800 slow connections: others are served in {max(took):.0f} ms at most")
        lines = await asyncio.gather(*replies.values())
        print("a body that does not arrive:", set(lines))
        assert set(lines) == {b"HTTP/1.1 408 Request Timeout\r\n"}
        drip.cancel()
        for reader, _ in heads + idle:
            with suppress(ConnectionError):  # it still wrote when the proxy had closed
                assert await asyncio.wait_for(reader.read(), 60) == b""
        print("a head that does not arrive, and none at all: closed")
        await serves_others(proxy)


async def test_a_reader_that_does_not_read(start: StartProxy, tei: StandInTei) -> None:
    """Twenty ask for 10 MB each and take nothing: little is written, and they are cut off."""
    tei.dimension, tei.odd = 1024, 0
    proxy = await start(store=False, client_timeout=3)
    texts = [f"text {i}" for i in range(900)]
    assert (await proxy.embed(inputs=texts))[0] == 200
    before, files = resident(proxy), sockets(proxy)
    body = json.dumps({"inputs": texts}).encode()
    async with AsyncExitStack() as stack:
        readers = []
        for _ in range(20):
            reader, writer = await stack.enter_async_context(connect(proxy, 65536))
            assert isinstance(writer.transport, asyncio.Transport)
            writer.transport.pause_reading()
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            readers.append((reader, writer.transport))
        most = before
        took = []

        async def cut_off() -> bool:
            nonlocal most
            took.append(await serves_others(proxy))
            most = max(most, resident(proxy))
            held = any(is_held(transport) for _, transport in readers)
            return not held and sockets(proxy) <= files + 2

        async def all_there() -> bool:
            return all(is_held(transport) for _, transport in readers)

        await proxy.until(all_there)
        await proxy.until(cut_off, 30)
        assert most < before + 60
        for reader, transport in readers:
            transport.resume_reading()
            with suppress(ConnectionResetError):
                assert len(await asyncio.wait_for(reader.read(), 60)) < 9_000_000
        print(
            f"20 readers that take nothing of 10 MB each: memory {before:.0f}, at most {most:.0f}, "
            f"then {resident(proxy):.0f} MiB; others are served in {max(took):.0f} ms at most"
        )


async def test_floods_of_headers(start: StartProxy) -> None:
    proxy = await start(store=False)
    before = resident(proxy)
    floods = {
        "1,000 headers": b"".join(b"X-%d: a\r\n" % i for i in range(1000)),
        "a header of 1 MB": b"X: " + b"a" * 1_000_000 + b"\r\n",
        "headers without end": b"X: a\r\n" * 1_000_000,
        "a path of 1 MB": b"",
    }
    for name, flood in floods.items():
        async with connect(proxy) as (reader, writer):
            head = b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n" if not flood else HEAD
            writer.write(head + flood + b"\r\n")
            line = await asyncio.wait_for(reader.readline(), 60)
        print(f"{name:20} {line.decode().strip()}")
        assert line.split()[1] == b"400"
        await serves_others(proxy)
    assert resident(proxy) < before + 30


async def test_broken_bodies_are_the_clients_fault(start: StartProxy) -> None:
    proxy = await start(store=False)
    broken = {
        "a chunk without a size": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        "no gzip": b"Content-Encoding: gzip\r\nContent-Length: 17\r\n\r\n" + BODY,
        "a length that is none": b"Content-Length: x\r\n\r\n",
    }
    for name, rest in broken.items():
        async with connect(proxy) as (reader, writer):
            writer.write(HEAD + rest)
            line = await asyncio.wait_for(reader.readline(), 60)
        print(f"{name:24} {line.decode().strip()}")
        assert line.split()[1] == b"400"
    assert b"Traceback" not in proxy.log
    await serves_others(proxy)


async def test_five_thousand_idle_connections(start: StartProxy) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    before_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    assert most > 6000, "this machine allows too few open files"
    try:
        proxy = await start(store=False)
        before = resident(proxy)
        async with AsyncExitStack() as stack:
            for _ in range(50):
                several = (stack.enter_async_context(connect(proxy)) for _ in range(100))
                await asyncio.gather(*several)
            took = [await serves_others(proxy) for _ in range(20)]
            print(
                f"5,000 idle connections: others are served in {max(took):.0f} ms at most; "
                f"memory {before:.0f} then {resident(proxy):.0f} MiB"
            )
            assert resident(proxy) < before + 200
        await serves_others(proxy)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before_limit)


async def test_clients_that_reset_amid_everything(start: StartProxy, tei: StandInTei) -> None:
    """300 go with a reset: amid the head, amid the body, while TEI works."""
    tei.delay = 0.2
    proxy = await start(store=False)
    parts = [HEAD[:20], HEAD + b"Content-Length: 100\r\n\r\n" + BODY]
    parts.append(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    for number in range(300):
        async with connect(proxy) as (_, writer):
            client: socket.socket = writer.get_extra_info("socket")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.write(parts[number % 3])
            await asyncio.sleep(0)
    await serves_others(proxy)

    async def released() -> bool:
        return tei.in_flight == 0

    await proxy.until(released)
    assert b"Traceback" not in proxy.log
