"""The load beside the deployment's scenarios: before a real proxy, and one that answers wrongly."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.proxy.conftest import listening, serving
from tests.stand_ins.process import free_port
from tests.stand_ins.tei import StandInTei

LOAD = Path(__file__).parents[2] / "molecule" / "load"


class Run:
    """A load in a process of its own, and what it reported."""

    def __init__(self, folder: Path) -> None:
        self._report = folder / "report.json"
        self.process: asyncio.subprocess.Process

    async def start(self, url: str, *flags: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(LOAD), "--url", url, "--report", str(self._report), *flags),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def end(self) -> tuple[int | None, dict[str, Any]]:
        out, err = await asyncio.wait_for(self.process.communicate(), 60)
        assert out.startswith(b"load: "), (out, err)
        assert out.count(b"\n") == 1
        return self.process.returncode, json.loads(self._report.read_text())

    async def whole(self, url: str, *flags: str) -> tuple[int | None, dict[str, Any]]:
        await self.start(url, *flags)
        return await self.end()

    async def until(
        self, enough: Callable[[], bool], url: str, *flags: str
    ) -> tuple[int | None, dict[str, Any]]:
        """Run until a condition is true, however long that takes."""
        stop = self._report.with_name("enough")
        await self.start(url, *flags, "--stop-file", str(stop))
        until = time.monotonic() + 60
        while not enough():
            assert self.process.returncode is None
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        stop.touch()
        return await self.end()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


class Endpoint:
    """Answers as the proxy does; faults are used up one per request, after the first 100."""

    def __init__(self, *faults: str, delay: float = 0.0) -> None:
        self.faults = deque(faults)
        self.delay = delay
        self.requests = 0
        self.third = asyncio.Event()
        self.peers: set[object] = set()
        self._seen: set[str] = set()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2_000_000)
        app.add_routes([web.post("/embed", self._embed)])
        return app

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        texts: list[str] = orjson.loads(await request.read())["inputs"]
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        self.requests += 1
        if self.requests == 3:
            self.third.set()
        await asyncio.sleep(self.delay)
        vectors: list[Any] = [[len(text) / 7, 0.5, -1.0] for text in texts]
        known = next((n for n, text in enumerate(texts) if text in self._seen), None)
        if self.requests > 100 and known is not None and self.faults:
            fault = self.faults.popleft()
            if fault == "500":
                return web.Response(status=500, text="it broke")
            if fault == "html":
                return web.Response(text="<html>", content_type="text/html")
            if fault == "close":
                request.transport.close()
            vectors[known] = {
                "dimension": [1.0],
                "null": [None, 0.5, -1.0],
                "other": [len(texts[known]) / 7, 0.5, -1.0001],
                "last bits": [len(texts[known]) / 7, 0.5, -1.000001],
            }.get(fault, vectors[known])
            if fault == "short":
                vectors.pop()
        self._seen.update(texts)
        headers = {"X-Cache": f"partial; hits=1; misses={len(texts) - 1}"}
        return web.Response(
            body=orjson.dumps(vectors), content_type="application/json", headers=headers
        )


async def test_against_a_real_proxy_nothing_fails_and_hits_and_misses_mix(run: Run) -> None:
    tei = StandInTei()
    async with listening(tei.app()) as upstream, serving(upstream) as proxy:
        await proxy.until(proxy.is_ready)
        status, figures = await run.until(
            lambda: len(tei.calls) > 100, proxy.url, "--connections", "4"
        )
    assert (status, figures["failed"], figures["failures"]) == (0, 0, [])
    assert figures["requests"] > 50
    assert figures["hits"] + figures["misses"] == figures["inputs"]
    assert min(figures["hits"], figures["misses"]) > figures["inputs"] / 4
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]


@pytest.mark.parametrize(("allowed", "expected"), [("0", 1), ("2", 0)])
async def test_faults_behind_a_real_proxy_are_counted(
    run: Run, allowed: str, expected: int
) -> None:
    tei = StandInTei()
    async with listening(tei.app()) as upstream, serving(upstream) as proxy:
        await proxy.until(proxy.is_ready)
        tei.faults.extend(["backend", "backend"])
        flags = ("--connections", "1", "--seconds", "1", "--allow", f"status-424={allowed}")
        status, figures = await run.whole(proxy.url, *flags)
    assert not tei.faults
    # A request of 40 texts is two batches and may have met both.
    assert figures["kinds"] in ({"status-424": 1}, {"status-424": 2})
    assert figures["failed"] == len(figures["failures"]) == figures["kinds"]["status-424"]
    assert "out of memory" in figures["failures"][0]["message"]
    assert status == expected


async def test_every_wrong_reply_is_a_failure_of_its_kind(run: Run) -> None:
    faults = ("500", "html", "close", "short", "dimension", "null", "other", "last bits")
    endpoint = Endpoint(*faults)
    async with listening(endpoint.app()) as url:
        status, figures = await run.until(lambda: not endpoint.faults, url, "--connections", "2")
    kinds = ("status-500", "not-json", "reset", "count", "dimension", "not-finite", "other-vector")
    assert figures["kinds"] == dict.fromkeys(kinds, 1)
    assert status == 1
    # Two connections end in an order of their own.
    by_kind = {failure["kind"]: failure["message"] for failure in figures["failures"]}
    assert sorted(by_kind) == sorted(kinds)
    assert len(figures["failures"]) == len(kinds)
    assert by_kind["status-500"] == "it broke"
    assert endpoint.requests == figures["requests"], "a request was sent twice"


async def test_refused_connections_are_counted(run: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    status, figures = await run.whole(url, "--connect-each", "--rate", "50", "--seconds", "1")
    assert status == 1
    assert figures["kinds"] == {"refused": figures["requests"]}
    assert 0 < figures["requests"] <= 60
    assert len(figures["failures"]) == min(20, figures["requests"])


async def test_four_hundred_connections_are_paced_and_kept(run: Run) -> None:
    endpoint = Endpoint()
    async with listening(endpoint.app()) as url:
        began = time.monotonic()
        flags = ("--connections", "400", "--rate", "300")
        status, figures = await run.until(lambda: endpoint.requests >= 600, url, *flags)
        seconds = time.monotonic() - began
    assert status == 0
    assert len(endpoint.peers) == 400
    assert figures["requests"] <= 300 * seconds + 50


async def test_a_connection_for_each_request(run: Run) -> None:
    endpoint = Endpoint()
    async with listening(endpoint.app()) as url:
        _, figures = await run.whole(url, "--connect-each", "--rate", "50", "--seconds", "1")
    assert figures["failed"] == 0
    assert len(endpoint.peers) == figures["requests"]


@pytest.mark.parametrize("how", ["signal", "file"])
async def test_told_to_stop_it_finishes_what_is_in_flight(
    run: Run, how: str, tmp_path: Path
) -> None:
    endpoint = Endpoint(delay=1)
    stop = tmp_path / "stop"
    async with listening(endpoint.app()) as url:
        await run.start(url, "--connections", "3", "--stop-file", str(stop))
        await asyncio.wait_for(endpoint.third.wait(), 30)
        stop.touch() if how == "file" else run.process.send_signal(signal.SIGTERM)
        status, figures = await run.end()
    assert (status, figures["requests"], figures["failed"]) == (0, 3, 0)
    assert figures["p50_ms"] >= 1000


async def test_what_cannot_be_meant_is_refused_at_once(tmp_path: Path) -> None:
    good = ["--url", "http://127.0.0.1:1"]
    for flags, sentence in (
        (["--url", "nowhere"], b"a URL such as"),
        ([*good, "--connections", "0"], b"a number from 1"),
        ([*good, "--allow", "refusd=3"], b"KIND=N is wanted"),
        ([*good, "--report", str(tmp_path / "no" / "report.json")], b"there is no folder"),
        ([*good, "--stop-file", str(tmp_path)], b"is there already"),
    ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(LOAD), *flags), stderr=asyncio.subprocess.PIPE
        )
        _, err = await process.communicate()
        assert (process.returncode, sentence in err) == (2, True), err
