"""`embedrack gc` against the embedded Qdrant: what it deletes, and what it must leave."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from proxy_app.cache.collector import (
    Collector,
    CollectorError,
    current_collection,
    last_within,
)
from proxy_app.entries.collection import collection_name
from proxy_app.settings import Settings
from tests.proxy.conftest import listening
from tests.qdrant.server import Server
from tests.stand_ins.tei import StandInTei

#: Of the import: the tests come later, and count in thousands of seconds.
NOW = int(time.time())
DAY = 86400
INDEX = {"field_name": "t", "field_schema": {"type": "integer", "lookup": False, "range": True}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data", "--api-key", "secret")
    yield server
    server.stop()


@pytest_asyncio.fixture
async def upstream(tei: StandInTei) -> AsyncIterator[str]:
    async with listening(tei.app()) as url:
        yield url


def fill(server: Server, name: str, *times: int) -> str:
    """Make a collection with an entry for each time; returns its name."""
    key = {"api-key": "secret"}
    settings = {"vectors": {"size": 8, "distance": "Dot"}}
    assert server.call("PUT", f"/collections/{name}", settings, key).status == 200
    assert server.call("PUT", f"/collections/{name}/index?wait=true", INDEX, key).status == 200
    points = [
        {"id": str(uuid.uuid4()), "vector": [1.0] * 8, "payload": {"t": moment}} for moment in times
    ]
    path = f"/collections/{name}/points?wait=true"
    if points:
        assert server.call("PUT", path, {"points": points}, key).status == 200
    return name


def times(server: Server, name: str) -> list[int]:
    """Return when the entries of a collection were written, sorted."""
    body = {"limit": 1000, "with_payload": True}
    path = f"/collections/{name}/points/scroll"
    points = server.call("POST", path, body, {"api-key": "secret"}).result["points"]
    return sorted(point["payload"]["t"] for point in points)


def names(server: Server) -> set[str]:
    reply = server.call("GET", "/collections", None, {"api-key": "secret"})
    return {one["name"] for one in reply.result["collections"]}


async def collect(server: Server, upstream: str, dry_run: bool = False, **given: int) -> list[str]:
    """Run the collector; returns what it says."""
    said: list[str] = []

    def run() -> None:
        environment = {f"EMBEDRACK_{name.upper()}": str(value) for name, value in given.items()}
        Collector(settings(server, upstream, **environment), said.append, dry_run).run()

    await asyncio.to_thread(run)
    return said


def settings(server: Server, upstream: str, **environment: str) -> Settings:
    """Return the settings of a deployment with this store and upstream."""
    return Settings.from_environment(
        environment
        | {
            "EMBEDRACK_QDRANT_URL": server.url,
            "EMBEDRACK_QDRANT_API_KEY": "secret",
            "EMBEDRACK_UPSTREAM_URL": upstream,
        }
    )


async def test_entries_beyond_age_and_number_are_deleted(server: Server, upstream: str) -> None:
    recent = [NOW - 600, NOW - 500, NOW - 500, NOW - 500, NOW - 400, NOW - 300]
    name = fill(server, collection_name("embedrack", "a", ""), NOW - 30000, NOW - 20000, *recent)
    other = fill(server, collection_name("embedrack-two", "a", ""), NOW - 30000)
    limits: dict[str, Any] = {"cache_ttl": 10000, "cache_max_entries": 4, "namespace_days": 0}

    lines = await collect(server, upstream, dry_run=True, **limits)
    assert [line.split(" from ")[0] for line in lines] == [
        f"would do: deletes 2 entries of {name}",
        f"would do: deletes the 4 oldest entries of {name}, which has 8",
    ]
    assert times(server, name) == [NOW - 30000, NOW - 20000, *recent]

    lines = await collect(server, upstream, **limits)
    assert lines[1] == f"deletes the 2 oldest entries of {name}, which has 6"
    assert (
        times(server, name) == recent[2:]
    )  # that of 60 s ago, and one of three of the same second
    assert times(server, other) == [NOW - 30000]
    assert await collect(server, upstream, **limits) == []


async def test_former_models_are_removed_and_nobody_elses(server: Server, upstream: str) -> None:
    long_ago, lately = NOW - 40 * DAY, NOW - 20 * DAY
    former = fill(server, collection_name("embedrack", "former", ""), long_ago, long_ago - DAY)
    empty = fill(server, collection_name("embedrack", "empty", ""))
    kept = {
        fill(server, collection_name("embedrack", "another", ""), long_ago, lately),
        fill(server, collection_name("embedrack-two", "former", ""), long_ago),
        fill(server, "embedrack-somebody's-own", long_ago),
        fill(server, "documents", long_ago),
        fill(server, await current_collection(settings(server, upstream)), long_ago),
    }
    assert len(kept) == 5

    lines = await collect(server, "http://127.0.0.1:9")
    assert lines == ["the model is not known now: no collection is removed"]
    assert names(server) == kept | {former, empty}

    assert len(await collect(server, upstream)) == 2
    assert names(server) == kept


async def test_the_command_says_what_it_would_do(server: Server, upstream: str) -> None:
    name = fill(server, collection_name("embedrack", "former", ""), NOW - 40 * DAY)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy_app", "gc", "--dry-run"),
        env=os.environ
        | {
            "EMBEDRACK_QDRANT_URL": server.url,
            "EMBEDRACK_QDRANT_API_KEY": "secret",
            "EMBEDRACK_UPSTREAM_URL": upstream,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, errors) == (0, b"")
    assert output.decode().startswith(f"would do: removes {name}, of another model: its newest")
    assert names(server) == {name}


async def test_a_store_that_is_away_is_said(upstream: str) -> None:
    environment = {"EMBEDRACK_QDRANT_URL": "http://127.0.0.1:9", "EMBEDRACK_NAMESPACE_DAYS": "0"}
    collector = Collector(Settings.from_environment(environment), print, False)
    with pytest.raises(CollectorError, match=r"Qdrant at http://127\.0\.0\.1:9: .*refused"):
        collector.run()


def test_without_the_client_the_remedy_is_said() -> None:
    code = (
        "import sys; sys.modules['qdrant_client'] = None; "
        "from proxy_app.commands.cli import main; sys.exit(main(['gc']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"EMBEDRACK_QDRANT_URL": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "embedrack[collector]" in done.stderr


def test_workers_never_load_the_client() -> None:
    code = (
        "import sys, proxy_app.app, proxy_app.server, proxy_app.commands.cli; "
        "sys.exit('qdrant_client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.lists(st.integers(0, 50)), st.integers(0, 30))
def test_bisection_finds_the_last_second_that_fits(moments: list[int], most: int) -> None:
    def count_before(limit: int) -> int:
        return sum(moment < limit for moment in moments)

    found = last_within(most, count_before, 60)
    assert count_before(found) <= most
    assert found == 60 or count_before(found + 1) > most
