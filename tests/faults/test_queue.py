"""Bounded work: so much in flight, so much in line, for so long; then 429 with Retry-After."""

from __future__ import annotations

import asyncio
import json

from tests.faults.conftest import gauges, until_idle
from tests.proxy.conftest import StartProxy
from tests.stand_ins.tei import StandInTei


async def test_so_much_in_flight_and_no_more(start: StartProxy, tei: StandInTei) -> None:
    tei.info["max_concurrent_requests"] = 64
    tei.delay = 0.05
    proxy = await start(workers=2)
    several = (proxy.embed(inputs=[f"{i} {j}" for j in range(20)]) for i in range(20))
    answers = await asyncio.gather(*several)
    print(f"at most {tei.most_in_flight} inputs were in the hands of a TEI that takes 64")
    assert {status for status, _, _ in answers} == {200}
    assert 8 < tei.most_in_flight <= 32
    await until_idle(proxy)


async def test_who_waits_too_long_is_told_to_come_again(start: StartProxy, tei: StandInTei) -> None:
    tei.info["max_concurrent_requests"] = 2
    answered = tei.held["slow"] = asyncio.Event()
    proxy = await start(queue_timeout=0.3)
    slow = asyncio.create_task(proxy.embed(inputs="slow"))

    async def in_flight() -> bool:
        return bool(tei.in_flight)

    await proxy.until(in_flight)
    for inputs in ("one", ["one of a batch"], ["three", "of a", "batch"]):
        status, [reply], headers = await proxy.embed(inputs=inputs)
        print(f"{inputs!s:30} {status} Retry-After {headers.get('Retry-After')} {reply.decode()}")
        assert (status, headers["Retry-After"]) == (429, "1")
        assert json.loads(reply)["error_type"] == "Overloaded"
        assert b"EMBEDRACK_QUEUE_TIMEOUT" in reply
    answered.set()
    assert (await slow)[0] == 200
    assert (await proxy.embed(inputs="one"))[0] == 200
    await until_idle(proxy)


async def test_a_large_request_waits_as_long_as_it_gets_on(
    start: StartProxy, tei: StandInTei
) -> None:
    """Its 20 batches take longer, one after the other, than anyone may wait for others."""
    tei.info |= {"max_concurrent_requests": 8, "max_client_batch_size": 4}
    tei.delay = 0.1
    proxy = await start(queue_timeout=1)
    status, vectors, _ = await proxy.embed(inputs=[f"text {i}" for i in range(80)])
    assert (status, len(vectors)) == (200, 80)
    assert len(tei.calls) == 20


async def test_a_full_queue_treats_batch_and_single_alike(
    start: StartProxy, tei: StandInTei
) -> None:
    """TEI's issue 662: whether one text or a list of one, the same load gives the same answer."""
    tei.info["max_concurrent_requests"] = 2
    answered = tei.held["slow"] = asyncio.Event()
    proxy = await start(max_queue=2)
    requests = [asyncio.create_task(proxy.embed(inputs="slow"))]

    async def queued() -> bool:
        seen = await gauges(proxy)
        return seen["embedrack_queue_inputs"] == len(requests) - 1 and bool(tei.in_flight)

    await proxy.until(queued)
    for number in range(2):
        requests.append(asyncio.create_task(proxy.embed(inputs=f"waits {number}")))
        await proxy.until(queued)
    refusals = set()
    for inputs in ("apple", ["apple"], ["apple", "pear"], [f"text {i}" for i in range(100)]):
        status, [reply], headers = await proxy.embed(inputs=inputs)
        refusals.add((status, headers["Retry-After"], reply))
    assert len(refusals) == 1
    [(status, retry_after, reply)] = refusals
    print(f"a full queue, one text, a list of one, of 2, of 100: {status} {retry_after} {reply!r}")
    assert (status, retry_after) == (429, "1")
    assert b"EMBEDRACK_MAX_QUEUE" in reply
    answered.set()
    assert {(await request)[0] for request in requests} == {200}
    await until_idle(proxy)
