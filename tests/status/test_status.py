"""/status.json: judged, alike in every worker, and about a real window."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from aiohttp import web

from proxy_app.routes.status import traffic, verdict
from proxy_app.telemetry.samples import WINDOW, Sample, latencies, points, quantile, within
from proxy_app.upstream.probes import Report, read_metrics
from proxy_app.workers.folder import Folder
from proxy_app.workers.history import History
from tests.proxy.conftest import StartProxy, listening, serving
from tests.stand_ins.process import free_port
from tests.stand_ins.qdrant import StandInQdrant
from tests.stand_ins.tei import StandInTei
from tests.status.conftest import status_of

WELL = Report("gpu-0", "", "")
ALL_WELL = {
    "serving": True,
    "upstream_problem": "",
    "instances": [WELL],
    "store_problem": "",
    "with_store": True,
    "idle_workers": 0,
    "failed": 0,
    "dropped": 0,
}


@pytest.mark.parametrize(
    ("wrong", "state", "word"),
    [
        ({}, "ok", "All is well: 1 instance and the shared cache answer"),
        ({"with_store": False}, "ok", "no shared cache"),
        ({"instances": [WELL, Report("gpu-1", "no answer", "")]}, "degraded", "gpu-1: no answer"),
        ({"store_problem": "refused"}, "degraded", "shared cache: refused"),
        ({"failed": 3}, "degraded", "3 requests failed"),
        ({"dropped": 4}, "degraded", "4 embeddings were not stored"),
        ({"idle_workers": 1}, "degraded", "1 of the proxy's workers"),
        ({"upstream_problem": "away"}, "bad", "Only what is cached is answered"),
        ({"upstream_problem": "away", "serving": False}, "bad", "Nothing can be answered"),
    ],
)
def test_the_verdict_says_what_is_to_mend(wrong: dict[str, object], state: str, word: str) -> None:
    judged = verdict(**(ALL_WELL | wrong))  # type: ignore[arg-type]
    assert judged["state"] == state
    assert word in "\n".join([judged["words"], *judged["notes"]])


def sampled(time: float, hits: float, misses: float, fast: float = 0) -> Sample:
    levels = [[0.0] * 19 for _ in range(3)]
    levels[0][2] = fast
    return Sample(time, [hits, 0.0, misses], levels, hits + misses, 0.0, 0.0)


def test_the_hit_rate_is_of_the_window_alone() -> None:
    samples = [sampled(0, 0, 1000), sampled(500, 0, 1000), sampled(1000, 90, 1010)]
    status = traffic(within(samples, sampled(1390, 90, 1010)))
    assert status["window_s"] == 890
    assert status["hit_rate"] == 0.9
    assert status["inputs"] == {"hit_l1": 90, "hit_l2": 0, "miss": 10}
    assert [point["hit_rate"] for point in status["curve"]] == [0.9, None]
    assert [point["inputs_per_s"] for point in status["curve"]] == [0.2, 0]


def test_a_clock_that_was_put_back_forgets_the_future() -> None:
    kept = within([sampled(2000, 5, 5), sampled(50, 1, 1)], sampled(60, 2, 2))
    assert [one.time for one in kept] == [50, 60]
    assert within([sampled(0, 1, 1)], sampled(WINDOW + 1, 2, 2))[0].time == WINDOW + 1


def test_the_last_step_shows_once_it_is_a_second_long() -> None:
    samples = [sampled(0, 0, 0), sampled(5, 1, 0), sampled(5.5, 2, 0)]
    assert [point.time for point in points(samples)] == [5]
    assert [point.time for point in points([*samples[:2], sampled(6, 2, 0)])] == [5, 6]


def test_quantiles_lie_in_their_bucket() -> None:
    counts = [0.0, 10.0, 0.0, 10.0, *[0.0] * 15]
    assert quantile(counts, 0.5) == 0.00025
    assert quantile(counts, 0.95) == pytest.approx(0.00095)
    assert quantile([0.0] * 19, 0.5) is None
    assert quantile([*[0.0] * 18, 1.0], 0.5) == 60.0


def test_latencies_are_of_the_requests_in_between() -> None:
    status = latencies(sampled(0, 0, 0, fast=100), sampled(9, 0, 0, fast=102))
    assert status["l1"] == {"requests": 2, "p50_ms": 0.375, "p95_ms": 0.487}
    assert status["miss"] == {"requests": 0, "p50_ms": None, "p95_ms": None}


def test_one_samples_for_all_and_another_goes_on(tmp_path: Path) -> None:
    one, other = History(Folder(tmp_path)), History(Folder(tmp_path))
    assert one.is_due(0)
    assert not other.is_due(0)
    one.keep(sampled(0, 1, 1))
    assert not one.is_due(4)
    assert one.is_due(5)
    one.close()
    assert other.is_due(5)
    other.keep(sampled(5, 2, 2))
    assert [sample.time for sample in other.read()] == [0, 5]
    other.close()


def test_samples_outlive_a_folder_that_was_emptied(tmp_path: Path) -> None:
    """One goes on with what it has, also where another worker comes that knows nothing of it."""
    path = tmp_path / "folder"
    one = History(Folder(path))
    assert one.is_due(0)
    one.keep(sampled(0, 1, 1))
    shutil.rmtree(path)
    assert one.is_due(5)
    one.keep(sampled(5, 2, 2))
    other = History(Folder(path))
    assert not other.is_due(10)
    assert [sample.time for sample in other.read()] == [0, 5]
    one.close()
    other.close()


def test_teis_page_of_metrics_is_summed_over_labels() -> None:
    """The page as the recorded TEI 1.9.3 writes it."""
    page = (
        b"# TYPE te_request_count counter\n"
        b'te_request_count{method="single"} 1\nte_request_count{method="batch"} 2\n\n'
        b"# TYPE te_queue_size gauge\nte_queue_size 0\n\n"
        b'te_request_duration_bucket{le="0.1"} 3\nte_request_duration_sum 0.25\n'
        b"te_request_duration_count NaN?\n"
    )
    assert read_metrics(page) == {
        "te_request_count": 3,
        "te_queue_size": 0,
        "te_request_duration_sum": 0.25,
    }


async def test_every_worker_tells_the_same(start: StartProxy) -> None:
    """Gauges are of both, counts of all requests, whoever answers."""
    proxy = await start(workers=2)
    for number in range(10):
        await proxy.embed(inputs=[f"text {number}", "again"])

    async def alike() -> bool:
        """Eight new connections, so that both are asked."""
        seen = []
        for _ in range(8):
            reader, writer = await asyncio.open_connection(*proxy.url[7:].split(":"))
            writer.write(b"GET /status.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            body = (await reader.read()).split(b"\r\n\r\n", 1)[1]
            writer.close()
            seen.append(json.loads(body))
        return all(
            sum(one["traffic"]["inputs"].values()) == 20
            and one["traffic"]["requests"] == 10
            and 11 <= one["memory"]["entries"] <= 12
            and one["memory"]["entries"] == seen[0]["memory"]["entries"]
            and one["workers"] == 2
            for one in seen
        )

    await proxy.until(alike, 20)


async def test_instances_are_asked_at_their_own_addresses(
    start: StartProxy, tei: StandInTei, tmp_path: Path
) -> None:
    """One does well, one hangs, one is not there; the page stays quick and says which."""

    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    hanging = web.Application()
    hanging.router.add_get("/health", hang)
    listed = tmp_path / "instances.json"
    async with listening(tei.app()) as well, listening(hanging) as ill:
        ports = {"well": int(well.rsplit(":", 1)[1]), "ill": int(ill.rsplit(":", 1)[1])}
        instances = [
            {"name": name, "address": "127.0.0.1", "port": port}
            for name, port in (ports | {"gone": free_port()}).items()
        ]
        listed.write_text(json.dumps({"namespace": "n", "instances": instances}))
        proxy = await start(workers=1, upstream_instances_file=listed)
        await proxy.embed(inputs=["a", "b"])
        status = await status_of(proxy)
        by_name = {one["name"]: one for one in status["instances"]}
        assert by_name["well"]["problem"] == ""
        assert by_name["well"]["inputs"] == tei.embedded
        assert by_name["well"]["queue"] == 0
        assert by_name["ill"]["problem"] == "no answer within 1 s"
        assert by_name["gone"]["problem"] == "cannot be reached: Connection refused"
        assert status["verdict"]["state"] == "degraded"


async def test_the_page_needs_nothing_from_elsewhere_and_many_who_look_cost_what_one_does(
    start: StartProxy, tei: StandInTei
) -> None:
    proxy = await start(workers=1)
    async with proxy.session.get(proxy.url + "/status") as reply:
        page, policy = await reply.text(), reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "innerHTML" not in page
    assert [line for line in page.splitlines() if "://" in line and "www.w3.org" not in line] == []
    asked = tei.counts["metrics"]
    replies = await asyncio.gather(*(proxy.get("/status.json") for _ in range(20)))
    assert len({text for _, text in replies}) <= 2
    assert tei.counts["metrics"] - asked <= 2


async def test_model_store_and_memory(start: StartProxy, qdrant: StandInQdrant) -> None:
    proxy = await start(workers=1, memory=4)
    await proxy.embed(inputs=["a", "b"])

    async def stored() -> bool:
        return bool((await status_of(proxy))["store"]["entries"] == 2)

    await proxy.until(stored)
    status = await status_of(proxy)
    assert status["store"] | {"problem": ""} == {
        "state": "ok",
        "problem": "",
        "entries": 2,
        "bytes": 2 * 8 * 4,
        "write_queue_bytes": 0,
    }
    assert status["memory"]["entries"] == 2
    assert status["memory"]["limit_bytes"] == 4 * 1024 * 1024
    assert status["model"]["id"] == "stand/in"
    assert status["model"]["dimension"] == 8
    assert status["model"]["namespace"] in qdrant.collections


async def test_without_upstream_the_verdict_is_bad() -> None:
    async with serving(f"http://127.0.0.1:{free_port()}") as proxy:
        status = await status_of(proxy)
        assert status["verdict"]["state"] == "bad"
        assert status["verdict"]["words"] == "Nothing can be answered"
        assert status["model"] is None
        assert status["traffic"]["hit_rate"] is None
