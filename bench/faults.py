"""What each fault does to a running load: ``python -m bench.faults`` writes ``results/faults.md``.

An open loop of 100 requests a second runs for eight seconds over a proxy of two workers; from the
second to the fifth something is wrong. Stand-ins for TEI and Qdrant live in this process, so the
times are not the proxy's best; what matters is who gets an error, and when it is over.
"""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from proxy_app.commands.load_test.mix import Mix, generated
from proxy_app.commands.load_test.outcome import Outcome
from proxy_app.commands.load_test.plan import Plan
from proxy_app.commands.load_test.run import Run
from proxy_app.commands.load_test.tally import Tally, percentile
from tests.proxy.conftest import Proxy, listening, serving, worker_pids
from tests.stand_ins.qdrant import StandInQdrant
from tests.stand_ins.tei import StandInTei, vector_of

RESULTS = Path(__file__).parent / "results"
RATE = 100.0
#: Seconds into the run at which the fault begins and ends, and at which the run does.
BEGIN, END, LAST = 2.0, 5.0, 8.0
#: Seconds from which on a request counts as not yet recovered.
SLOW = 0.25
#: So that what hangs or waits shows within the run.
SETTINGS: dict[str, Any] = {
    "workers": 2,
    "memory": 8,
    "store_timeout": 0.05,
    "upstream_timeout": 2,
    "queue_timeout": 2,
    "max_queue": 1000,
    "client_timeout": 2,
    "log_level": "error",
}
_HEAD = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


class Upstream(StandInTei):
    """A stand-in that costs next to nothing: every text has the same vector."""

    def __init__(self) -> None:
        super().__init__(384, odd=0)
        self.delay = 0.01
        self.died = asyncio.Event()
        self._ready = vector_of("bench", 384, odd=0)

    async def _answer(
        self, request: web.Request, body: dict[str, Any], inputs: list[object]
    ) -> web.StreamResponse:
        before = self.deaths
        reply = await super()._answer(request, body, inputs)
        if self.deaths > before:
            self.died.set()
        return reply

    def vector(self, item: object, body: dict[str, Any]) -> bytes:
        """Return it."""
        return self._ready


class Place:
    """A stand-in that can leave its port and come back to it."""

    def __init__(self, make: Callable[[], web.Application]) -> None:
        self._make = make
        self._stack = AsyncExitStack()
        self.url = ""

    async def open(self) -> None:
        """Listen, the second time where it did before."""
        port = int(self.url.rsplit(":", 1)[1]) if self.url else 0
        self.url = await self._stack.enter_async_context(listening(self._make(), port))

    async def close(self) -> None:
        """Break all connections, and listen no more."""
        await self._stack.aclose()


class Bed:
    """The proxy and its surroundings."""

    def __init__(self) -> None:
        self.tei, self.qdrant = Upstream(), StandInQdrant()
        self.tei_place, self.qdrant_place = Place(self.tei.app), Place(self.qdrant.app)
        self.proxy: Proxy
        self.notes: list[str] = []

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run all of it."""
        await self.tei_place.open()
        await self.qdrant_place.open()
        urls = (self.tei_place.url, self.qdrant_place.url)
        try:
            async with serving(urls[0], urls[1], **SETTINGS) as self.proxy:
                await self.well()
                yield
        finally:
            await self.tei_place.close()
            await self.qdrant_place.close()

    async def well(self) -> None:
        """Wait until misses are answered and the store is used."""

        async def is_well() -> bool:
            try:
                return '"store":"ok"' in (await self.proxy.get("/readyz"))[1]
            except aiohttp.ClientError:
                return False

        await self.proxy.until(is_well, 30)

    @property
    def address(self) -> tuple[str, int]:
        """Where the proxy listens."""
        return "127.0.0.1", int(self.proxy.url.rsplit(":", 1)[1])


Fault = Callable[[Bed], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def nothing(bed: Bed) -> AsyncIterator[None]:
    """Nothing happens: what the machine itself does to the load."""
    yield


@asynccontextmanager
async def tei_slow(bed: Bed) -> AsyncIterator[None]:
    """Every batch takes TEI 0.5 s instead of 0.01."""
    bed.tei.delay, former = 0.5, bed.tei.delay
    yield
    bed.tei.delay = former


@asynccontextmanager
async def tei_hangs(bed: Bed) -> AsyncIterator[None]:
    """TEI takes batches and answers none."""
    bed.tei.delay, former = 60, bed.tei.delay
    yield
    bed.tei.delay = former


@asynccontextmanager
async def tei_away(bed: Bed) -> AsyncIterator[None]:
    """TEI is gone, and comes back."""
    await bed.tei_place.close()
    yield
    await bed.tei_place.open()


@asynccontextmanager
async def wrong_replies(bed: Bed) -> AsyncIterator[None]:
    """Every reply of TEI's is wrong: a short list, NaN as null, HTML, another dimension."""
    bed.tei.faults.extend(["short", "nan", "html", "dimension"] * 500)
    yield
    bed.tei.faults.clear()


@asynccontextmanager
async def deadly_text(bed: Bed) -> AsyncIterator[None]:
    """Somebody sends, ten times a second, a text that kills TEI, which starts again in 0.5 s."""
    bed.tei.deadly.add("poison")
    deaths = bed.tei.deaths
    statuses: Counter[str] = Counter()

    async def send() -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                body = {"inputs": ["poison", "its mate"]}
                async with session.post(bed.proxy.url + "/embed", json=body) as reply:
                    statuses[str(reply.status)] += 1
                await asyncio.sleep(0.1)

    async def restart() -> None:
        while True:
            await bed.tei.died.wait()
            await bed.tei_place.close()
            bed.tei.died.clear()
            await asyncio.sleep(0.5)
            await bed.tei_place.open()

    async with doing(send(), restart()):
        yield
    bed.notes.append(f"{bed.tei.deaths - deaths} deaths; its sender got {listed(statuses)}")


@asynccontextmanager
async def qdrant_slow(bed: Bed) -> AsyncIterator[None]:
    """Every look-up takes Qdrant five seconds."""
    bed.qdrant.mode = "slow"
    yield
    bed.qdrant.mode = ""


@asynccontextmanager
async def qdrant_away(bed: Bed) -> AsyncIterator[None]:
    """Qdrant is gone, and comes back."""
    await bed.qdrant_place.close()
    yield
    await bed.qdrant_place.open()


@asynccontextmanager
async def flood_of_misses(bed: Bed) -> AsyncIterator[None]:
    """Sixty more clients each send 64 new texts, again and again; TEI takes 0.2 s a batch."""
    bed.tei.delay, former = 0.2, bed.tei.delay
    tally = Tally()
    mix = Mix(["more"], new=1.0, sizes=(range(64, 65),))
    plan = Plan(bed.proxy.url + "/embed", seconds=END - BEGIN, concurrency=60)
    run = Run(plan, mix.bodies(), tally.add)
    async with doing(run.go()):
        yield
    bed.tei.delay = former
    statuses = Counter({str(status): count for status, count in tally.statuses.items()})
    bed.notes.append(f"the flood got {listed(statuses)}")


@asynccontextmanager
async def slow_readers(bed: Bed) -> AsyncIterator[None]:
    """Forty clients ask for four MB each and take nothing of it."""
    body = orjson.dumps({"inputs": [f"text {i}" for i in range(1000)]})
    request = _HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with connections(bed, 40, request):
        yield


@asynccontextmanager
async def header_floods(bed: Bed) -> AsyncIterator[None]:
    """Four clients send 1,000 headers, a header of a megabyte, and headers without end."""
    over = threading.Event()
    sent = Counter({"sent": 0})
    floods = [
        b"".join(b"X-%d: a\r\n" % i for i in range(1000)),
        b"X: " + b"a" * 1_000_000,
        b"X: a\r\n" * 100_000,
    ]

    def flood() -> None:
        while not over.is_set():
            for content in floods:
                # It is refused before its end.
                with suppress(ConnectionError), socket.create_connection(bed.address, 5) as client:
                    client.sendall(_HEAD + content + b"\r\n\r\n")
                    client.recv(100)
                sent["sent"] += 1

    threads = [asyncio.create_task(asyncio.to_thread(flood)) for _ in range(4)]
    yield
    over.set()
    await asyncio.gather(*threads)
    bed.notes.append(f"{sent['sent']} of them")


@asynccontextmanager
async def idle_connections(bed: Bed) -> AsyncIterator[None]:
    """Two thousand connections say nothing."""
    async with connections(bed, 2000, b""):
        yield


@asynccontextmanager
async def worker_killed(bed: Bed) -> AsyncIterator[None]:
    """SIGKILL for one of the two workers."""
    os.kill(min(worker_pids(bed.proxy)), signal.SIGKILL)
    yield


FAULTS: dict[str, Fault] = {
    "nothing": nothing,
    "TEI slow": tei_slow,
    "TEI hangs": tei_hangs,
    "TEI away and back": tei_away,
    "wrong replies of TEI's": wrong_replies,
    "a text that kills TEI": deadly_text,
    "Qdrant slow": qdrant_slow,
    "Qdrant away and back": qdrant_away,
    "a flood of misses": flood_of_misses,
    "slow readers": slow_readers,
    "floods of headers": header_floods,
    "2,000 idle connections": idle_connections,
    "a worker killed": worker_killed,
}


@asynccontextmanager
async def doing(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do something beside, and end it."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


@asynccontextmanager
async def connections(bed: Bed, count: int, content: bytes) -> AsyncIterator[None]:
    """Open connections that send something and read nothing."""
    clients: list[socket.socket] = []

    def connect() -> None:
        for _ in range(count):
            client = socket.socket()
            clients.append(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.connect(bed.address)
            client.sendall(content)

    await asyncio.to_thread(connect)
    try:
        yield
    finally:
        for client in clients:
            client.close()


def listed(counts: Counter[str]) -> str:
    """Say what was counted, the most first."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"


async def suffer(bed: Bed, fault: Fault) -> list[Outcome]:
    """Run the load while the fault comes and goes; returns what became of each request."""
    outcomes: list[Outcome] = []
    mix = Mix(generated(2000, 12, 0), new=0.1, sizes=(*[range(1, 2)] * 3, range(2, 17)), seed=1)
    plan = Plan(
        bed.proxy.url + "/embed", seconds=LAST, rate=RATE, concurrency=2000, timeout=15, seed=1
    )
    run = Run(plan, mix.bodies(), outcomes.append)
    running = asyncio.create_task(run.go())
    await asyncio.sleep(BEGIN / 2)  # by then it has a clock
    await asyncio.sleep(BEGIN - run.now)
    async with fault(bed):
        await asyncio.sleep(max(0.0, END - run.now))
    await running
    return sorted(outcomes, key=lambda one: one.at)


def row(meaning: str, outcomes: list[Outcome], notes: list[str]) -> str:
    """Say in a row of a table what became of the load."""
    parts = [
        [one for one in outcomes if one.at + one.seconds < BEGIN],
        [one for one in outcomes if one.at + one.seconds >= BEGIN and one.at < END],
        [one for one in outcomes if one.at >= END],
    ]
    errors = [Counter(one.kind for one in part if one.kind) for part in parts]
    kinds = listed(errors[1])
    if errors[0] or errors[2]:
        kinds += f" (before: {listed(errors[0])}; after: {listed(errors[2])})"
    tails = " | ".join(p99(part) for part in parts)
    cells = ("; ".join([meaning, *notes]), f"{len(parts[1])}", kinds, tails)
    return f"| {' | '.join(cells)} | {recovery(outcomes)} |"


def p99(outcomes: list[Outcome]) -> str:
    """Return the 99th percentile of the good ones, in milliseconds."""
    found = percentile(sorted(one.seconds for one in outcomes if not one.kind), 99)
    return "none good" if found is None else f"{found * 1e3:.0f}"


def recovery(outcomes: list[Outcome]) -> str:
    """Return how long after the fault's end a request still failed or was slow."""
    ill = [one.at for one in outcomes if one.at >= END and (one.kind or one.seconds > SLOW)]
    last = max(ill, default=END)
    return f"{last - END:.1f} s" if last < LAST - 0.5 else f"not within {LAST - END:.0f} s"


HEAD = """\
`python -m bench.faults`: {machine}. For each fault an open loop of {rate:.0f} requests a second
(Zipf over 2,000 texts, one in ten new; half of the requests have up to 16 texts) runs {last:.0f} s
over two workers; something is wrong from second {begin:.0f} to {end:.0f}. Requests and errors are
of those three seconds, the 99th percentiles of good requests from before, in and after them.
Recovery: how long after the fault's end a request was sent that still failed or took more than
{slow:.0f} ms. Generator and stand-ins are one process on the same machine; the row "nothing" shows
what that does. Settings: {settings}.

| fault | requests | errors | p99 before (ms) | during | after | recovery |
|---|---|---|---|---|---|---|
"""


async def main() -> int:
    """Let each fault happen, print the table and write it; 1 where the proxy did not recover."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    wanted = sys.argv[1:] or list(FAULTS)
    head = HEAD.format(
        machine=f"{os.cpu_count()} cores, Python {platform.python_version()}",
        **{"rate": RATE, "begin": BEGIN, "end": END, "last": LAST, "slow": SLOW * 1e3},
        settings=", ".join(f"{name} {value}" for name, value in SETTINGS.items()),
    )
    rows = []
    bed = Bed()
    async with bed.run():
        for name in wanted:
            fault, bed.notes = FAULTS[name], []
            outcomes = await suffer(bed, fault)
            meaning = (fault.__doc__ or "").rstrip(".")
            rows.append(row(f"**{name}**. {meaning}", outcomes, bed.notes))
            print(rows[-1], flush=True)
            await bed.well()
    if not sys.argv[1:]:
        (RESULTS / "faults.md").write_text(head + "\n".join(rows) + "\n")
    return int(any("not within" in one for one in rows))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
