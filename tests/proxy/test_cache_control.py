"""What a request may ask of the cache, and how old an entry may be."""

from __future__ import annotations

import asyncio
import time

from tests.proxy.conftest import Proxy, StartProxy
from tests.stand_ins.qdrant import StandInQdrant
from tests.stand_ins.tei import StandInTei


async def ask(proxy: Proxy, text: str, control: str = "") -> str:
    """Embed a text; gives the X-Cache header's first word."""
    headers = {"Cache-Control": control} if control else {}
    async with proxy.session.post(
        proxy.url + "/embed", json={"inputs": text}, headers=headers
    ) as reply:
        assert reply.status == 200
        return reply.headers["X-Cache"].split(";")[0]


async def test_no_cache_computes_anew_and_keeps_that(
    start: StartProxy, tei: StandInTei, qdrant: StandInQdrant
) -> None:
    proxy = await start()
    assert await ask(proxy, "a") == "miss"
    assert await ask(proxy, "a", "max-age=0, No-Cache") == "miss"
    assert tei.calls == [["a"], ["a"]]
    await proxy.until(lambda: written(qdrant, 1))
    looked_up = qdrant.counts["retrieve"]
    assert await ask(proxy, "b", "no-cache") == "miss"
    assert qdrant.counts["retrieve"] == looked_up  # what the store says would not be used
    assert await ask(proxy, "b") == "hit"
    await proxy.until(lambda: written(qdrant, 2))


async def test_no_store_keeps_nothing(
    start: StartProxy, tei: StandInTei, qdrant: StandInQdrant
) -> None:
    proxy = await start()
    assert await ask(proxy, "secret", "no-store") == "miss"
    assert await ask(proxy, "secret", "no-store") == "miss"
    assert await ask(proxy, "other") == "miss"
    await proxy.until(lambda: written(qdrant, 1))
    await asyncio.sleep(0)
    assert len(qdrant.points) == 1  # the queue is in order: the secret was not in it
    assert tei.calls == [["secret"], ["secret"], ["other"]]


async def test_no_store_is_answered_from_what_is_kept_already(
    start: StartProxy, qdrant: StandInQdrant
) -> None:
    proxy = await start(memory=0)  # so that each hit is the store's
    assert await ask(proxy, "a") == "miss"
    await proxy.until(lambda: written(qdrant, 1))
    assert await ask(proxy, "a", "no-store") == "hit"
    assert await ask(proxy, "a", "no-store, no-cache") == "miss"


async def test_wishes_that_differ_do_not_share_a_flight(start: StartProxy, tei: StandInTei) -> None:
    tei.delay = 0.3
    proxy = await start()
    controls = ["", "", "no-cache", "no-cache", "no-store"]
    assert set(await asyncio.gather(*(ask(proxy, "a", c) for c in controls))) == {"miss"}
    assert len(tei.calls) == 3
    assert await ask(proxy, "a") == "hit"


async def test_an_old_entry_of_the_store_is_a_miss(
    start: StartProxy, qdrant: StandInQdrant
) -> None:
    proxy = await start(cache_ttl=1000, memory=0)
    await ask(proxy, "a")
    await proxy.until(lambda: written(qdrant, 1))
    assert await ask(proxy, "a") == "hit"
    [point] = qdrant.points
    qdrant.payloads[point]["t"] = int(time.time()) - 1001
    assert await ask(proxy, "a") == "miss"


async def written(qdrant: StandInQdrant, count: int) -> bool:
    """Tell whether the store holds so many entries."""
    return len(qdrant.points) == count
