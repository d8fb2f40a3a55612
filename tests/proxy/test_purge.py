"""The administrator's purges: out of every worker's memory, its queue, and the store."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import aiohttp
import pytest_asyncio
from aiohttp import web

from proxy_app.entries.collection import collection_name
from tests.proxy.conftest import Proxy, StartProxy, worker_pids
from tests.stand_ins.qdrant import StandInQdrant
from tests.stand_ins.tei import StandInTei


class GatedTei(StandInTei):
    """Answers no text while its gate is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def _answer(
        self, request: web.Request, body: dict[str, Any], inputs: list[object]
    ) -> web.StreamResponse:
        if inputs != ["dimension"]:
            await self.gate.wait()
        return await super()._answer(request, body, inputs)


@pytest_asyncio.fixture
async def tei() -> GatedTei:
    return GatedTei()


class GatedQdrant(StandInQdrant):
    """Writes nothing while its gate is shut; a deletion opens it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def _upsert(self, request: web.Request) -> web.Response:
        self.counts["arrived"] += 1
        await self.gate.wait()
        return await super()._upsert(request)

    async def _delete(self, request: web.Request) -> web.Response:
        reply = await super()._delete(request)
        self.gate.set()
        return reply


@pytest_asyncio.fixture
async def qdrant() -> GatedQdrant:
    return GatedQdrant()


KEY = "an administrator's key"
ADMIN = {"Authorization": f"Bearer {KEY}"}


async def purge(proxy: Proxy, **what: object) -> tuple[int, dict[str, Any]]:
    async with proxy.session.post(proxy.url + "/admin/purge", json=what, headers=ADMIN) as reply:
        return reply.status, await reply.json()


async def stats(proxy: Proxy) -> dict[str, Any]:
    async with proxy.session.get(proxy.url + "/admin/stats", headers=ADMIN) as reply:
        assert reply.status == 200
        body: dict[str, Any] = await reply.json()
        return body


async def word(proxy: Proxy, text: str, **fields: object) -> str:
    """Embed a text over a connection of its own, so any worker may answer; gives hit or miss."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(proxy.url + "/embed", json={"inputs": text, **fields}) as reply,
    ):
        assert reply.status == 200, await reply.text()
        return reply.headers["X-Cache"].split(";")[0]


async def in_every_memory(proxy: Proxy, text: str, workers: int) -> None:
    """Embed a text until every worker has it."""

    async def is_there() -> bool:
        await word(proxy, text)
        return int((await stats(proxy))["l1"]["entries"]) == workers

    await proxy.until(is_there, 20)


async def test_everything_is_purged_from_every_worker(
    start: StartProxy, tei: StandInTei, qdrant: StandInQdrant
) -> None:
    proxy = await start(workers=2, admin_key=KEY)
    assert len(worker_pids(proxy)) == 2
    await in_every_memory(proxy, "a", 2)
    [name] = qdrant.collections
    qdrant.collections[name + "-of-somebody"] = 8
    calls = len(tei.calls)
    assert await purge(proxy, all=True) == (200, {"collections": [name], "workers_late": 0})
    assert not qdrant.points
    assert await word(proxy, "a") == "miss"
    assert len(tei.calls) == calls + 1

    async def is_stored_again() -> bool:
        return len(qdrant.points) == 1

    await proxy.until(is_stored_again)  # the collection was made anew
    assert name + "-of-somebody" in qdrant.collections


async def test_a_text_is_purged_with_its_fields(start: StartProxy, qdrant: StandInQdrant) -> None:
    proxy = await start(admin_key=KEY)
    for text in ("a", "b"):
        await word(proxy, text)
    await word(proxy, "a", normalize=False)

    async def are_stored() -> bool:
        return len(qdrant.points) == 3

    await proxy.until(are_stored)
    assert await purge(proxy, inputs=["a"]) == (200, {"texts": 1, "workers_late": 0})
    assert len(qdrant.points) == 2
    assert await word(proxy, "b") == "hit"
    assert await word(proxy, "a", normalize=False) == "hit"
    assert await word(proxy, "a") == "miss"


async def test_a_namespace_is_purged_and_what_is_none_is_refused(start: StartProxy) -> None:
    proxy = await start(admin_key=KEY)
    await word(proxy, "a")
    name = (await stats(proxy))["collection"]
    assert await purge(proxy, namespace=name) == (200, {"collections": [name], "workers_late": 0})
    assert await word(proxy, "a") == "miss"
    status, reply = await purge(proxy, namespace=collection_name("embedrack-two", "stand/in", ""))
    assert status == 404
    assert "`namespace`" in reply["error"]

    bodies: list[dict[str, object]] = [
        {},
        {"all": False},
        {"all": True, "inputs": "a"},
        {"inputs": []},
    ]
    for body in bodies:
        status, reply = await purge(proxy, **body)
        assert status in (400, 422), body
        assert "wanted" in reply["error"] or "inputs" in reply["error"]

    headers: list[dict[str, str]] = [{}, {"Authorization": "Bearer another key altogether"}]
    for wrong in headers:
        async with proxy.session.get(proxy.url + "/admin/stats", headers=wrong) as refusal:
            assert (refusal.status, await refusal.read()) == (401, b"")
            assert refusal.headers["WWW-Authenticate"] == "Bearer"


async def test_without_a_store_memory_is_purged(start: StartProxy) -> None:
    proxy = await start(store=False, admin_key=KEY)
    await word(proxy, "a")
    assert await purge(proxy, all=True) == (200, {"workers_late": 0})
    assert await word(proxy, "a") == "miss"
    assert await purge(proxy, inputs="a") == (200, {"workers_late": 0})
    assert await word(proxy, "a") == "miss"


async def test_what_is_purged_leaves_the_queue_of_writes(
    start: StartProxy, qdrant: StandInQdrant
) -> None:
    proxy = await start(admin_key=KEY)
    qdrant.mode = "refuse"
    await word(proxy, "purged")
    status, reply = await purge(proxy, inputs="purged")
    assert (status, reply["error_type"]) == (503, "Unhealthy")
    assert "the store has not" in reply["error"]
    await word(proxy, "kept")
    qdrant.mode = ""

    async def is_stored() -> bool:
        return len(qdrant.points) > 0

    await proxy.until(is_stored)
    assert len(qdrant.points) == 1
    assert await word(proxy, "kept") == "hit"
    assert await word(proxy, "purged") == "miss"


async def test_what_is_being_written_is_taken_back(
    start: StartProxy, qdrant: StandInQdrant
) -> None:
    proxy = await start(admin_key=KEY)
    assert isinstance(qdrant, GatedQdrant)
    qdrant.gate.clear()
    await word(proxy, "in hand")

    async def is_being_written() -> bool:
        return qdrant.counts["arrived"] == 1

    await proxy.until(is_being_written)
    await word(proxy, "in the queue")
    assert await purge(proxy, inputs=["in hand", "in the queue"]) == (
        200,
        {"texts": 2, "workers_late": 0},
    )

    assert not qdrant.points
    await word(proxy, "kept")

    async def is_stored() -> bool:
        return len(qdrant.points) > 0

    await proxy.until(is_stored)
    assert len(qdrant.points) == 1
    assert await word(proxy, "in hand") == "miss"
    assert await word(proxy, "kept") == "hit"


async def test_a_flight_under_way_files_nothing_that_was_purged(
    start: StartProxy, tei: StandInTei, qdrant: StandInQdrant
) -> None:
    proxy = await start(admin_key=KEY)
    assert isinstance(tei, GatedTei)
    tei.gate.clear()
    asked = asyncio.create_task(word(proxy, "a"))

    async def is_under_way() -> bool:
        return tei.in_flight == 1

    await proxy.until(is_under_way)
    assert (await purge(proxy, all=True))[0] == 200
    tei.gate.set()
    assert await asked == "miss"
    assert not qdrant.points
    assert await word(proxy, "a") == "miss"


async def test_statistics_tell_levels_entries_and_bytes(
    start: StartProxy, qdrant: StandInQdrant
) -> None:
    proxy = await start(admin_key=KEY)
    await word(proxy, "a")
    await word(proxy, "a")

    async def is_counted() -> bool:
        reply = await stats(proxy)
        return (reply["l1"]["entries"], reply["store"]["entries"]) == (1, 1)

    await proxy.until(is_counted)
    reply = await stats(proxy)
    assert reply["inputs"] == {"hit_l1": 1, "hit_l2": 0, "miss": 1}
    assert reply["hit_rate"] == {"l1": 0.5, "l2": 0.0, "all": 0.5}
    assert 328 < reply["l1"]["bytes"] < 1000
    assert reply["store"]["vector_bytes"] == 8 * 4
    [collection] = reply["store"]["collections"]
    assert collection["name"] == reply["collection"] == next(iter(qdrant.collections))


async def command(proxy: Proxy, *arguments: str) -> tuple[int, str, str]:
    """Run `embedrack …` as an operator would; gives exit status, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy_app", *arguments, "--url", proxy.url),
        env=os.environ | {"EMBEDRACK_ADMIN_KEY": KEY},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_the_commands_do_the_same(start: StartProxy, qdrant: StandInQdrant) -> None:
    proxy = await start(admin_key=KEY)
    await word(proxy, "a")
    status, output, errors = await command(proxy, "stats")
    assert (status, errors) == (0, "")
    assert "hit rate" in output
    status, output, _ = await command(proxy, "purge", "--text", "a")
    assert (status, output) == (0, "purged: 1 text\n")
    assert await word(proxy, "a") == "miss"
    status, output, _ = await command(proxy, "purge", "--all")
    assert (status, output) == (0, "purged: 1 collection\n")
    status, output, errors = await command(proxy, "purge", "--namespace", "nobody's")
    assert (status, output) == (1, "")
    assert errors.startswith(f"embedrack: {proxy.url}/admin/purge answered 404: `namespace`")
    status, output, errors = await command(proxy, "stats", "--key", "a key that is wrong")
    assert status == 1
    assert "EMBEDRACK_ADMIN_KEY" in errors
