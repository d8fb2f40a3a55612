"""TEI slow, hanging or wrong: the request fails in its dialect, and everything held is released."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from proxy_app.app import Parts
from proxy_app.embedding.request import Options
from proxy_app.errors import EmbedError
from proxy_app.settings import Settings
from tests.faults.conftest import resident, sockets, until_idle
from tests.proxy.conftest import StartProxy, listening
from tests.stand_ins.qdrant import StandInQdrant
from tests.stand_ins.tei import StandInTei

#: What TEI never does but something between might; status and words of what the client gets.
WRONG = {
    "204": (424, "answered 204"),
    "redirect": (424, "answered 307"),
    "gzip": (424, "no list of embeddings"),
    "text": (424, "embedding 0 of 3"),
    "object": (424, "no list of embeddings"),
    "two": (424, "no list of embeddings"),
    "endless": (424, "more than"),
    "trickle": (503, "in time"),
    "breaks off": (503, "broke off"),
}


async def test_wrong_replies_are_errors_and_nothing_is_kept(
    start: StartProxy, tei: StandInTei, qdrant: StandInQdrant
) -> None:
    proxy = await start(upstream_timeout=0.7)
    before = resident(proxy)
    for fault, (status, words) in WRONG.items():
        texts = [f"{fault} {i}" for i in range(3)]
        # One that breaks off is sent once more, its inputs one by one.
        tei.faults.extend([fault, fault] if fault == "breaks off" else [fault])
        got, [reply], _ = await proxy.embed(inputs=texts)
        error = json.loads(reply)
        print(f"TEI: {fault:12} {got} {error['error']}")
        assert (got, set(error)) == (status, {"error", "error_type"})
        assert words in error["error"]
        got, vectors, headers = await proxy.embed(inputs=texts)
        assert (got, len(vectors), headers["X-Cache"][:4]) == (200, 3, "miss")

    async def poured_out() -> bool:
        return tei.counts["pour ended"] == 4

    await proxy.until(poured_out)
    grown = resident(proxy) - before
    print(f"an endless reply: {tei.counts['poured']} MB were sent; memory grew by {grown:.0f} MiB")
    assert grown < 50
    await until_idle(proxy)

    async def stored() -> bool:
        return len(qdrant.points) == 3 * len(WRONG)

    await proxy.until(stored)


async def test_everything_is_released_when_tei_hangs(tmp_path: Path) -> None:
    """Seen from inside: the states of one worker's parts, before, while and after."""
    tei = StandInTei(max_concurrent_requests=40)
    async with listening(tei.app()) as url:
        settings = Settings(upstream_url=url, upstream_timeout=2, queue_timeout=1, workers=1)
        parts = Parts(settings, tmp_path)
        running = parts.run(None)  # type: ignore[arg-type]
        await anext(running)

        def states() -> str:
            return f"{parts.permits!r} {parts.service.flights!r}"

        def connections() -> int:
            return len(tei.carrying)

        try:
            print("before:", states())
            tei.faults.extend(["hang"] * 50)
            embeds = [
                parts.service.embed([f"{i} {j}" for j in range(10)], Options()) for i in range(6)
            ]
            tasks = [asyncio.create_task(embed) for embed in embeds]
            full = "<Permits in_flight=20/20 queued=40> <Flights flights=60 waiters=60 jobs=6>"
            for _ in range(90):
                if states() == full:
                    break
                await asyncio.sleep(0.01)
            print("while: ", states(), f"{connections()} connections in use")
            assert states() == full
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            errors = [error for error in outcomes if isinstance(error, EmbedError)]
            print("errors:", sorted(error.status for error in errors))
            assert sorted(error.status for error in errors) == 4 * [429] + 2 * [503]
            for _ in range(100):
                if not connections() and "jobs=0" in states():
                    break
                await asyncio.sleep(0.05)
            print("after: ", states(), f"{connections()} connections in use")
            assert states() == (
                "<Permits in_flight=0/20 queued=0> <Flights flights=0 waiters=0 jobs=0>"
            )
            assert connections() == 0
            tei.faults.clear()
            answer = await parts.service.embed(["0 0"], Options())
            assert answer.misses == 1
        finally:
            with pytest.raises(StopAsyncIteration):
                await anext(running)


async def test_hanging_again_and_again_leaves_nothing(start: StartProxy, tei: StandInTei) -> None:
    """Seen from outside: open files and memory after the first round and after four more."""
    proxy = await start(upstream_timeout=0.15, memory=0)

    async def round_() -> None:
        tei.faults.extend(["hang"] * 20)
        several = (
            proxy.embed(inputs=["x" * 10_000 + f"{i} {j}" for j in range(30)]) for i in range(20)
        )
        assert {status for status, _, _ in await asyncio.gather(*several)} == {503}
        tei.faults.clear()
        await until_idle(proxy)

    await round_()
    files, memory = sockets(proxy), resident(proxy)
    for _ in range(4):
        await round_()

    async def as_before() -> bool:
        return sockets(proxy) <= files + 2

    await proxy.until(as_before)
    print(
        f"100 requests to a hanging TEI: open files {files} then {sockets(proxy)}, "
        f"memory {memory:.0f} then {resident(proxy):.0f} MiB"
    )
    assert resident(proxy) < memory + 30


async def test_who_goes_away_takes_what_waits_along(start: StartProxy, tei: StandInTei) -> None:
    """Half of the clients go: their batches end at TEI or never get there; the others' do."""
    tei.info["max_concurrent_requests"] = 8
    proxy = await start(store=False)
    tei.delay = 60
    go = [asyncio.create_task(proxy.embed(inputs=[f"go {i}"])) for i in range(30)]

    async def begun() -> bool:
        return tei.in_flight == 4

    await proxy.until(begun)
    tei.delay = 0.5
    stay = [asyncio.create_task(proxy.embed(inputs=[f"stay {i}"])) for i in range(4)]
    for task in go:
        task.cancel()
    await asyncio.gather(*go, return_exceptions=True)
    assert [(await task)[0] for task in stay] == 4 * [200]
    await until_idle(proxy)
    seen = [str(text) for call in tei.calls for text in call]
    gone = sum(text.startswith("go") for text in seen)
    print(
        f"30 clients went: TEI got {gone} of their texts, and {tei.cancelled} were cancelled there"
    )
    # A place that is free may be taken by one who goes a moment later.
    assert 4 <= gone == tei.cancelled < 15
