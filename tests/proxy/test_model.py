"""Which model made a vector: nothing is filed under another one's name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from tests.proxy.conftest import Proxy, StartProxy, listening, serving
from tests.stand_ins.balancer import balancer
from tests.stand_ins.qdrant import StandInQdrant
from tests.stand_ins.tei import StandInTei

#: The fields of a request that says nothing of them.
USUAL = {"normalize": True, "truncate": True}


class Behind:
    """A proxy before a balancer, which leads to one of two instances with different models."""

    def __init__(self) -> None:
        self.instances = [StandInTei(), StandInTei(model_id="stand/other")]
        self.instances[1].salt = "other"
        self.urls: list[str] = []
        self.served: list[str] = []

    def serve(self, number: int) -> None:
        """Exchange the instance; the connection from the proxy stays."""
        self.served[:] = [self.urls[number]]


@pytest_asyncio.fixture
async def behind(qdrant: StandInQdrant) -> AsyncIterator[tuple[Behind, Proxy]]:
    behind = Behind()
    async with AsyncExitStack() as stack:
        for one in behind.instances:
            behind.urls.append(await stack.enter_async_context(listening(one.app())))
        behind.serve(0)
        upstream = await stack.enter_async_context(listening(balancer(behind.served)))
        store = await stack.enter_async_context(listening(qdrant.app()))
        proxy = await stack.enter_async_context(serving(upstream, store))
        await proxy.until(proxy.is_ready)
        yield behind, proxy


async def test_the_instance_changes_behind_a_connection_that_stays(
    behind: tuple[Behind, Proxy],
) -> None:
    """Six texts are first asked right after a change, and again when it is undone."""
    scene, proxy = behind
    one, other = scene.instances
    assert (await proxy.embed(inputs="the connection is made"))[0] == 200
    seen = []
    for number in range(6):
        text = f"text {number}"
        scene.serve(1)
        status, [vector], headers = await proxy.embed(inputs=text)
        assert (status, vector) == (200, other.vector(text, USUAL))
        scene.serve(0)
        assert (await proxy.embed(inputs=f"a new one {number}"))[0] == 200  # by which it is noticed
        status, [vector], headers = await proxy.embed(inputs=text)
        assert status == 200
        seen.append((headers["X-Cache"][:4], vector == one.vector(text, USUAL)))
    wrong = sum(not right for _, right in seen)
    print(f"a vector of the other model is answered in {wrong} of {len(seen)} tries: {seen}")
    assert wrong == 0


async def test_the_instance_changes_amid_a_batch(behind: tuple[Behind, Proxy]) -> None:
    """The former model answers as the latter comes: its reply is not the latter's."""
    scene, proxy = behind
    one, other = scene.instances
    one.held["late"] = asyncio.Event()
    asking = asyncio.create_task(proxy.embed(inputs="late"))
    await proxy.until(lambda: is_asked(one, "late"))
    scene.serve(1)
    one.held["late"].set()
    for _ in range(2):
        status, [vector], _ = await asking
        assert (status, vector) == (200, other.vector("late", USUAL))
        asking = asyncio.create_task(proxy.embed(inputs="late"))
    await asking


async def is_asked(instance: StandInTei, text: str) -> bool:
    return [text] in instance.calls


async def test_many_batches_share_a_look_at_the_model(start: StartProxy, tei: StandInTei) -> None:
    """Forty that end at once are confirmed by one look, which began after they did."""
    tei.held = {f"text {i}": asyncio.Event() for i in range(40)}
    proxy = await start(store=False)
    await proxy.embed(inputs="the connection is made")
    asking = [asyncio.create_task(proxy.embed(inputs=text)) for text in tei.held]

    async def all_asked() -> bool:
        return tei.in_flight == 40

    await proxy.until(all_asked)
    before = tei.counts["info"]
    for event in tei.held.values():
        event.set()
    assert {(await task)[0] for task in asking} == {200}
    looks = tei.counts["info"] - before
    print(f"40 batches that end at once: {looks} looks at the model")
    assert looks < 20


async def test_a_pinned_namespace_needs_no_look(
    start: StartProxy, tei: StandInTei, tmp_path: Path
) -> None:
    """Where the balancer leads to one model's instances alone, only new connections are looked at.

    The proxy looks at the model by itself every two seconds, too.
    """
    listed = tmp_path / "instances.json"
    listed.write_text('{"namespace":"abc","instances":[{"name":"0","namespace":"abc"}]}')
    app = web.Application()
    app.add_subapp("/abc/", tei.app())
    async with (
        listening(app) as url,
        serving(url + "/abc", upstream_instances_file=str(listed)) as proxy,
    ):
        await proxy.until(proxy.is_ready)
        await proxy.embed(inputs="the connection is made")
        before = tei.counts["info"]
        for number in range(50):
            assert (await proxy.embed(inputs=f"text {number}"))[0] == 200
        looks = tei.counts["info"] - before
        print(f"50 batches before a pinned namespace: {looks} looks at the model")
        assert looks < 25


async def test_the_default_prompt_is_part_of_the_namespace(
    start: StartProxy, tei: StandInTei
) -> None:
    """TEI's /info does not show it: a restart with another one looks the same there."""
    proxy = await start(store=False)
    plain = await namespace(proxy)
    assert "default_prompt" not in plain
    await proxy.embed(inputs="a text")
    tei.default_prompt = "query: "
    tei.faults.append("close")  # it starts anew
    assert (await proxy.embed(inputs="another"))[0] == 200
    assert (await namespace(proxy))["default_prompt"]
    status, [vector], headers = await proxy.embed(inputs="a text")
    assert (status, headers["X-Cache"][:4]) == (200, "miss")
    assert vector == tei.vector("a text", USUAL)


async def namespace(proxy: Proxy) -> dict[str, object]:
    info = json.loads((await proxy.get("/info"))[1])
    marks: dict[str, object] = info["embedrack"]["namespace"][1]
    return marks


@pytest.mark.parametrize("fault", ["missing", "html", "short"])
async def test_where_tokenize_cannot_tell_a_prompt(
    start: StartProxy, tei: StandInTei, fault: str
) -> None:
    tei.tokenize_fault, tei.default_prompt = fault, "query: "
    proxy = await start(store=False)
    assert "default_prompt" not in await namespace(proxy)


async def test_a_tokenize_that_fails_later_changes_nothing(
    start: StartProxy, tei: StandInTei
) -> None:
    tei.default_prompt = "query: "
    proxy = await start(store=False)
    before = await namespace(proxy)
    tei.tokenize_fault = "overloaded"
    tei.faults.append("close")
    assert (await proxy.embed(inputs="a text"))[0] == 200
    assert await namespace(proxy) == before


PINNED = '{"namespace":"abc","instances":[{"name":"0","namespace":"abc"}]}'


def served_at(path: str, tei: StandInTei) -> web.Application:
    app = web.Application()
    app.add_subapp(path, tei.app())
    return app


async def test_hits_are_answered_while_tei_is_away_from_the_start(
    tei: StandInTei, qdrant: StandInQdrant, tmp_path: Path
) -> None:
    """Where the balancer leads to one namespace alone: it is the model of before the restart."""
    listed = tmp_path / "instances.json"
    listed.write_text(PINNED)
    settings = {"upstream_instances_file": listed, "data_folder": tmp_path}
    async with listening(qdrant.app()) as store:
        async with (
            listening(served_at("/abc", tei)) as url,
            serving(url + "/abc", store, **settings) as proxy,
        ):
            await proxy.until(proxy.is_ready)
            known = (await proxy.embed(inputs="known"))[1]
            await proxy.until(lambda: is_stored(qdrant, 1))
        async with serving(url + "/abc", store, **settings) as proxy:
            status, vectors, headers = await proxy.embed(inputs="known")
            assert (status, vectors, headers["X-Cache"][:3]) == (200, known, "hit")
            assert (await proxy.embed(inputs="new"))[0] == 503
            status, text = await proxy.get("/readyz")
            print(f"hits are answered by a model that is remembered: {status} {text}")
            assert (status, json.loads(text)["model"]) == (503, "remembered")
            status_page = json.loads((await proxy.get("/status.json"))[1])
            assert status_page["model"]["state"] == "remembered"
            assert status_page["verdict"]["words"] == "Only what is cached is answered"
            port = int(url.rsplit(":", 1)[1])
            async with listening(served_at("/abc", tei), port):
                await proxy.until(proxy.is_ready)
                assert json.loads((await proxy.get("/readyz"))[1])["model"] == "confirmed"


async def is_stored(qdrant: StandInQdrant, count: int) -> bool:
    return len(qdrant.points) == count


async def test_without_a_pinned_namespace_info_has_to_confirm_the_model(
    tei: StandInTei, qdrant: StandInQdrant, tmp_path: Path
) -> None:
    """Then hits are answered, though no instance has embedded anything yet."""
    async with listening(qdrant.app()) as store:
        async with listening(tei.app()) as url, serving(url, store, data_folder=tmp_path) as proxy:
            await proxy.until(proxy.is_ready)
            known = (await proxy.embed(inputs="known"))[1]
            await proxy.until(lambda: is_stored(qdrant, 1))
        async with serving(url, store, data_folder=tmp_path) as proxy:
            assert (await proxy.embed(inputs="known"))[0] == 503
            assert json.loads((await proxy.get("/readyz"))[1])["model"] == "unknown"
            tei.delay = 60
            async with listening(tei.app(), int(url.rsplit(":", 1)[1])):

                async def is_hit() -> bool:
                    status, vectors, _ = await proxy.embed(inputs="known")
                    return (status, vectors) == (200, known)

                await proxy.until(is_hit)


async def test_another_models_record_is_of_no_use(
    tei: StandInTei, qdrant: StandInQdrant, tmp_path: Path
) -> None:
    async with listening(qdrant.app()) as store, listening(tei.app()) as url:
        async with serving(url, store, data_folder=tmp_path) as proxy:
            await proxy.until(proxy.is_ready)
        tei.info["model_id"], tei.dimension = "stand/other", 6
        broken = tmp_path / "broken"
        broken.mkdir()
        (broken / "model.json").write_text(
            json.dumps({"url": url, "word": "", "info": "no JSON", "prompt": [], "dimension": 8})
        )
        for folder in (tmp_path, broken, tmp_path / "missing", Path("/proc/none")):
            async with serving(url, store, data_folder=folder) as proxy:
                await proxy.until(proxy.is_ready)
                [vector] = (await proxy.embed(inputs="a text"))[1]
                assert len(json.loads(vector)) == 6
