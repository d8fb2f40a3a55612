"""Memory stays bounded with the largest requests, and as many as come."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

from tests.faults.conftest import connect, resident, until_idle
from tests.proxy.conftest import Proxy, StartProxy
from tests.stand_ins.tei import StandInTei

#: A request of 60 MiB: 2,000 texts.
LARGEST = json.dumps({"inputs": [f"{i:05} " + "x" * 31_000 for i in range(2000)]}).encode()


async def send(proxy: Proxy, *, chunked: bool) -> tuple[int, bytes]:
    """Send the largest request until there is a reply; returns its status and all of it."""
    how = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(LARGEST)
    async with connect(proxy) as (reader, writer):

        async def pour() -> None:
            writer.write(b"POST /embed HTTP/1.1\r\nHost: x\r\n" + how + b"\r\n\r\n")
            for start in range(0, len(LARGEST), 2**20):
                piece = LARGEST[start : start + 2**20]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await writer.drain()
            writer.write(b"0\r\n\r\n" if chunked else b"")

        pouring = asyncio.create_task(pour())
        reply = await reader.readuntil(b"}")
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
        return int(reply.split()[1]), reply


async def flood(proxy: Proxy, count: int, *, chunked: bool) -> tuple[Counter[int], float]:
    """Send so many at once; returns how many got which status, and the most memory in MiB."""
    tasks = [asyncio.create_task(send(proxy, chunked=chunked)) for _ in range(count)]
    everyone = asyncio.gather(*tasks)
    most = 0.0
    while not everyone.done():
        most = max(most, resident(proxy))
        await asyncio.sleep(0.02)
    answers = await everyone
    for status, reply in answers:
        if status == 429:
            assert b"Retry-After: 1\r\n" in reply
            assert b"EMBEDRACK_BODY_MEMORY" in reply
    return Counter(status for status, _ in answers), most


async def test_sixty_of_the_largest_requests(start: StartProxy, tei: StandInTei) -> None:
    """3.5 GB are sent to a worker while TEI hangs: it takes two, and refuses the others unread."""
    proxy = await start(store=False, memory=1, body_memory=130, upstream_timeout=2)
    tei.delay = 60
    before = resident(proxy)
    for count, chunked in ((60, False), (8, True)):
        statuses, most = await flood(proxy, count, chunked=chunked)
        await until_idle(proxy)

        async def given_back() -> bool:
            return resident(proxy) < before + 60

        await proxy.until(given_back)
        after = resident(proxy)
        how = "chunked" if chunked else "sized"
        print(
            f"{count} requests of {len(LARGEST) / 2**20:.0f} MiB, {how}: "
            f"answers {dict(statuses)}, memory before {before:.0f}, at most {most:.0f}, "
            f"after {after:.0f} MiB"
        )
        assert set(statuses) == {429, 503}
        assert most < before + 3 * 130 + 60
