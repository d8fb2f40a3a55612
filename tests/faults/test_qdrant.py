"""Qdrant slow, silent, away and back: the budget, the pause, and what is counted."""

from __future__ import annotations

import asyncio

import pytest

from proxy_app.cache.lookups import LOOKUP_POINTS
from proxy_app.embedding.service import TURN
from tests.faults.conftest import gauges
from tests.proxy.conftest import Proxy, StartProxy, listening, serving
from tests.stand_ins.qdrant import StandInQdrant
from tests.stand_ins.tei import StandInTei

READ = 'embedrack_store_errors_total{op="read"}'
SKIPPED = 'embedrack_store_errors_total{op="skipped"}'


async def l2_milliseconds(proxy: Proxy, **body: object) -> float:
    """Embed, and return the time in the store as the proxy tells it; 0 where it asked nothing."""
    status, _, headers = await proxy.embed(**body)
    assert status == 200
    timing = dict(part.split(";dur=") for part in headers["Server-Timing"].split(", "))
    return float(timing.get("l2", 0))


async def test_one_budget_however_large_the_request(
    start: StartProxy, tei: StandInTei, qdrant: StandInQdrant
) -> None:
    """2,000 inputs wait for a silent Qdrant once, not once for each of 32 look-ups."""
    proxy = await start(memory=0, store_timeout=0.2)
    qdrant.mode = "slow"
    spent = await l2_milliseconds(proxy, inputs=[f"text {i}" for i in range(2000)])
    seen = await gauges(proxy)
    print(
        f"2,000 inputs, a Qdrant that takes 5 s, a budget of 200 ms: {spent:.0f} ms in the store, "
        f"{qdrant.counts['retrieve']} of 32 look-ups begun, {seen[READ]:.0f} counted as failed"
    )
    assert qdrant.counts["retrieve"] == seen[READ] == TURN / LOOKUP_POINTS


async def test_after_three_time_outs_one_request_a_second_tries(
    start: StartProxy, qdrant: StandInQdrant
) -> None:
    proxy = await start(memory=0, store_timeout=0.05)
    qdrant.mode = "slow"
    for number in range(40):
        assert (await proxy.embed(inputs=f"text {number}"))[0] == 200
    tried = qdrant.counts["retrieve"]
    seen = await gauges(proxy)
    print(f"40 requests to a slow Qdrant: {tried} look-ups, {seen[SKIPPED]:.0f} skipped")
    assert seen[SKIPPED] == 40 - tried
    assert seen[READ] == tried
    assert tried < 20
    await asyncio.sleep(1.1)  # the pause
    several = (proxy.embed(inputs=f"later {number}") for number in range(30))
    await asyncio.gather(*several)
    print(f"30 at once after the pause: {qdrant.counts['retrieve'] - tried} look-up")
    assert qdrant.counts["retrieve"] == tried + 1


async def test_a_qdrant_that_accepts_and_never_answers(
    tei: StandInTei, qdrant: StandInQdrant
) -> None:
    """It is there from the start; later a real one listens in its place, and is used."""
    connections = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while await reader.read(65536):
                pass
        finally:
            writer.close()

    silent = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    settings = {"memory": 0, "store_timeout": 0.1}
    async with (
        listening(tei.app()) as upstream,
        serving(upstream, f"http://127.0.0.1:{port}", **settings) as proxy,
    ):
        await proxy.until(proxy.is_ready)
        statuses = [(await proxy.embed(inputs=f"text {i}"))[0] for i in range(20)]
        assert statuses == 20 * [200]
        seen = await gauges(proxy)
        # Permits follow the model though the store is silent.
        tei.info["max_concurrent_requests"] = 8

        async def followed() -> bool:
            tei.most_in_flight = 0
            await proxy.embed(inputs=[f"{tei.counts['info']} {i}" for i in range(16)])
            return tei.most_in_flight <= 4

        await proxy.until(followed)
        silent.close()
        await silent.wait_closed()
        async with listening(qdrant.app(), port):

            async def hit() -> bool:
                return (await proxy.embed(inputs="text 0"))[2]["X-Cache"].startswith("hit")

            await proxy.until(hit, 30)
            seen = await gauges(proxy)
    print(
        f"a silent Qdrant: {connections} connections, 20 requests answered, then it came back; "
        f"{seen[SKIPPED]:.0f} look-ups skipped, {seen[READ]:.0f} failed"
    )


async def test_a_qdrant_that_is_slow_and_comes_back(
    start: StartProxy, qdrant: StandInQdrant
) -> None:
    proxy = await start(memory=0, store_timeout=0.3)
    await proxy.embed(inputs="known")

    async def hit() -> bool:
        return (await proxy.embed(inputs="known"))[2]["X-Cache"].startswith("hit")

    await proxy.until(hit)
    qdrant.mode = "slow"
    for number in range(5):
        assert (await proxy.embed(inputs=["known", str(number)]))[0] == 200
    qdrant.mode = ""
    await proxy.until(hit)


@pytest.mark.parametrize(("mode", "is_slower"), [("chunked", False), ("HTTP/1.0", True)])
async def test_a_qdrant_behind_something_that_changes_its_replies(
    start: StartProxy, qdrant: StandInQdrant, mode: str, is_slower: bool
) -> None:
    """Where they are not understood, look-ups go over aiohttp's client, also those under way."""
    proxy = await start(memory=0, workers=1)
    texts = [f"text {number}" for number in range(20)]

    async def all_hit() -> bool:
        replies = await asyncio.gather(*(proxy.embed(inputs=text) for text in texts))
        assert {status for status, _, _ in replies} == {200}
        return all(headers["X-Cache"].startswith("hit") for _, _, headers in replies)

    await proxy.until(all_hit)
    qdrant.mode = mode
    await proxy.until(all_hit)
    assert (b"go the slower way" in proxy.log) == is_slower
