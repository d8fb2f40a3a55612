"""The metrics: documented, there from the first scrape, right when workers come and go."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as TheirHistogram
from prometheus_client.parser import text_string_to_metric_families

from proxy_app.telemetry import metrics
from proxy_app.telemetry.tallies import Tallies, add
from proxy_app.workers.folder import Folder
from proxy_app.workers.ledger import Ledger
from tests.proxy.conftest import Proxy, StartProxy, worker_pids
from tests.stand_ins.qdrant import StandInQdrant
from tests.stand_ins.tei import StandInTei
from tests.status.conftest import status_of

DOCS = Path(__file__).parents[2] / "docs" / "proxy.md"
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(proxy: Proxy) -> Series:
    """Read /metrics as Prometheus would; gives each series' value."""
    _, text = await proxy.get("/metrics")
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


def test_the_documentation_has_every_metric_as_it_is() -> None:
    table = metrics.TALLIES
    counters = [(f.name + "_total", f.label_names, f.meaning) for f in table.counters]
    gauges = [(f.name, f.label_names, f.meaning) for f in table.gauges]
    histograms = [(f.name, f.label_names, f.meaning) for f in table.histograms]
    for name, label_names, meaning in counters + gauges + histograms:
        labels = ", ".join(f"`{label}`" for label in label_names)
        assert f"| `{name}` | {labels} | {meaning} |\n" in DOCS.read_text()


async def test_a_worker_that_dies_takes_its_gauges_and_leaves_counts_and_history(
    start: StartProxy,
) -> None:
    proxy = await start(workers=1)
    await proxy.embed(inputs=["a", "b", "c"])
    before, window = await scrape(proxy), (await status_of(proxy))["traffic"]["window_s"]
    assert value(before, "embedrack_entries") == 3
    assert value(before, "embedrack_workers") == 1
    (worker,) = worker_pids(proxy)
    os.kill(worker, signal.SIGKILL)

    async def another() -> bool:
        return worker not in worker_pids(proxy) and await proxy.is_ready()

    await proxy.until(another, 30)
    after = await scrape(proxy)
    assert value(after, "embedrack_entries") == 0
    assert value(after, "embedrack_workers") == 1
    assert value(after, "embedrack_inputs_total", result="miss") == 3
    for key in before:
        if key[0].endswith(("_total", "_bucket", "_count", "_sum")):
            assert after[key] >= before[key], key
    traffic = (await status_of(proxy))["traffic"]
    assert traffic["inputs"]["miss"] == 3
    assert traffic["window_s"] > window


async def test_first_all_is_0_then_a_request_counts_where_its_slowest_embedding_came_from(
    start: StartProxy, qdrant: StandInQdrant
) -> None:
    proxy = await start(workers=1, memory=0)
    first, text = await scrape(proxy), (await proxy.get("/metrics"))[1]
    documented = re.findall(r"^\| `(embedrack_\w+)` \|", DOCS.read_text(), re.MULTILINE)
    assert len(documented) > 10
    for name in documented:
        assert f"\n# TYPE {name} " in "\n" + text
    for label in (*metrics.INPUTS, *metrics.STORE_ERRORS, *metrics.UPSTREAM_ERRORS):
        assert f'="{label}"}} 0.0\n' in text
    assert {key: n for key, n in first.items() if n and key[0].endswith(("_count", "_total"))} == {}
    await proxy.embed(inputs="stored")

    async def is_stored() -> bool:
        return bool(qdrant.points)

    await proxy.until(is_stored)
    await proxy.embed(inputs="stored")
    series = await scrape(proxy)
    for level, count in {"l1": 0, "l2": 1, "miss": 1}.items():
        labels = {"route": "embed", "level": level}
        assert value(series, "embedrack_request_seconds_count", **labels) == count


async def test_one_model_is_told_at_a_time(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start(workers=1)

    async def models() -> list[str]:
        return [
            dict(labels)["model"]
            for name, labels in await scrape(proxy)
            if name == "embedrack_info"
        ]

    async def shown() -> bool:
        return await models() == ["stand/in"]

    await proxy.until(shown)
    tei.info["model_id"] = "another/one"

    async def followed() -> bool:
        return await models() == ["another/one"]

    await proxy.until(followed)


@given(st.lists(st.floats(0, 100)))
def test_histograms_are_prometheus_clients_own(values: list[float]) -> None:
    ours, theirs = Tallies(), CollectorRegistry()
    bounds = (0.1, 1.0, 10.0)
    family = ours.histogram("x", "X", "a", bounds=bounds)
    histogram = TheirHistogram("x", "X", ["a"], buckets=bounds, registry=theirs)
    for number in values:
        family.labels("b").observe(number)
        histogram.labels("b").observe(number)
    sums: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    add(sums, ours.snapshot().counts)
    [metric] = ours.collect(sums)
    collected = {(one.name, one.labels.get("le")): one.value for one in metric.samples}
    text = generate_latest(theirs).decode()
    for line in text_string_to_metric_families(text):
        for one in line.samples:
            if values and not one.name.endswith("_created"):
                assert collected[one.name, one.labels.get("le")] == one.value


def test_a_folder_that_was_emptied_is_made_again(tmp_path: Path) -> None:
    tallies = Tallies()
    counter = tallies.counter("x", "X").labels()
    ledger = Ledger(Folder(tmp_path / "folder"))
    for count in (1, 2):
        shutil.rmtree(tmp_path / "folder")
        counter.inc()
        ledger.publish(tallies.snapshot())
        assert ledger.read() == {("x", ()): [count]}
    shutil.rmtree(tmp_path / "folder")
    ledger.publish(tallies.snapshot())  # as before
    assert ledger.read() == {("x", ()): [2]}


def test_counts_of_ended_workers_are_never_counted_twice_or_lost(tmp_path: Path) -> None:
    """Also for a reader who had listed the folder just before."""
    tallies = Tallies()
    counter = tallies.counter("x", "X").labels()
    gauge = tallies.gauge("y", "Y").labels()
    one, other = Ledger(Folder(tmp_path)), Ledger(Folder(tmp_path))
    counter.inc(5)
    gauge.set(7)
    one.publish(tallies.snapshot())
    counter.inc(-2)
    other.publish(tallies.snapshot())
    assert other.read() == {("x", ()): [8.0], ("y", ()): [14.0]}
    left = {path: path.read_bytes() for path in tmp_path.glob("worker-*")}
    other.close(os.getpid())
    assert other.read() == {("x", ()): [8.0]}
    for path, content in left.items():  # as that reader still has them
        path.write_bytes(content)
    assert other.read() == {("x", ()): [8.0]}
