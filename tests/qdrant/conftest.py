from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.qdrant.server import Server


@contextmanager
def started(folder: Path) -> Iterator[Server]:
    """A process on an empty folder; it must end cleanly and quietly."""
    server = Server(folder)
    try:
        yield server
    finally:
        status, errors = server.stop()
    assert (status, errors) == (0, "")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A process of the test's own, which it may stop."""
    with started(tmp_path / "data") as server:
        yield server


@pytest.fixture
def own_cache(own: Server) -> Server:
    """With a collection `cache` of 4-d vectors."""
    own.create()
    return own


@pytest.fixture(scope="session")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(tmp_path_factory.mktemp("store") / "data") as server:
        yield server


@pytest.fixture
def server(lasting: Server) -> Server:
    """A process that other tests used before and use later, without a collection."""
    for collection in lasting.call("GET", "/collections").result["collections"]:
        assert lasting.call("DELETE", f"/collections/{quote(collection['name'])}").result is True
    return lasting


@pytest.fixture
def cache(server: Server) -> Server:
    """With a collection `cache` of 4-d vectors."""
    server.create()
    return server
