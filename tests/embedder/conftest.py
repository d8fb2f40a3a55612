from __future__ import annotations

from collections.abc import Iterator

import pytest

from .process import Process


@pytest.fixture(scope="session")
def embedder() -> Iterator[Process]:
    """An embedder with TEI's defaults."""
    with Process() as process:
        yield process


@pytest.fixture(scope="session")
def strict() -> Iterator[Process]:
    """An embedder with the flags that the last of the recorded cases were made with."""
    flags = ("--api-key", "secret", "--auto-truncate", "false", "--max-concurrent-requests", "4")
    with Process(*flags) as process:
        yield process
