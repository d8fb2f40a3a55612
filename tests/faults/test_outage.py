"""While the upstream is away nobody knows which input is deadly, so none is refused afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from tests.faults.test_suspects import embed_anew
from tests.proxy.conftest import StartProxy
from tests.stand_ins.tei import StandInTei


@pytest.mark.parametrize("kind", ["502", "close"])
async def test_an_outage_blames_no_text(start: StartProxy, tei: StandInTei, kind: str) -> None:
    """Twenty texts are asked again and again for three seconds of it, and once a second later."""
    proxy = await start(workers=2, store=False)
    tei.outage = kind
    ends = time.monotonic() + 3
    during: Counter[int] = Counter()

    async def ask(text: str) -> None:
        while time.monotonic() < ends:
            during[(await embed_anew(proxy, [text]))[0]] += 1
            await asyncio.sleep(0.1)

    texts = [f"text {i}" for i in range(20)]
    await asyncio.gather(*map(ask, texts))
    tei.outage = ""
    await asyncio.sleep(1)
    answers = await asyncio.gather(*(embed_anew(proxy, [text]) for text in texts))
    after = Counter(status for status, _ in answers)
    print(f"{kind}: 20 texts asked during an outage: {dict(during)}; afterwards {dict(after)}")
    assert set(during) == {503}
    assert set(after) == {200}


@pytest.mark.parametrize("kind", ["502", "close"])
async def test_a_batch_is_sent_once_during_an_outage(
    start: StartProxy, tei: StandInTei, kind: str
) -> None:
    proxy = await start(store=False)
    tei.outage = kind
    batch = [f"text {i}" for i in range(32)]
    status, _ = await embed_anew(proxy, batch)
    sizes = [len(inputs) for inputs in tei.lost]
    print(f"{kind}: a batch of 32 during an outage: {status}, sent in requests of {sizes}")
    assert (status, sizes) == (503, [32])
    tei.outage = ""
    await asyncio.sleep(1)
    assert (await embed_anew(proxy, batch))[0] == 200
