from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.qdrant.server import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A process on an empty folder; it must end cleanly and quietly."""
    server = Server(tmp_path / "data")
    try:
        yield server
    finally:
        status, errors = server.stop()
    assert (status, errors) == (0, "")


@pytest.fixture
def cache(server: Server) -> Server:
    """A process with a collection `cache` of 4-d vectors."""
    server.create()
    return server
