"""The libraries at work in a process of their own, and a proxy with a cache of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack.conftest import embedder_url, proxy, qdrant_url

__all__ = ["embedder_url", "qdrant_url"]

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"


class Libraries:
    """Asks one library after the other for embeddings."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def answer(self, client: str, url: str, texts: list[str]) -> dict[str, Any]:
        """Return ``{"vectors"}``, or ``{"error"}`` with what the library raised."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"client": client, "url": url, "texts": texts}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the libraries' process ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def embed(self, client: str, url: str, texts: list[str]) -> list[list[float]]:
        """Return the vectors; fails the test where the library raised something."""
        answer = self.answer(client, url, texts)
        assert "error" not in answer, answer["error"]
        vectors: list[list[float]] = answer["vectors"]
        return vectors


@pytest.fixture(scope="session")
def libraries() -> Iterator[Libraries]:
    if not PYTHON.exists():
        reason = "no .venv-clients: `python3 scripts/bootstrap.py clients` makes it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    drivers = str(Path(__file__).with_name("drivers.py"))
    with subprocess.Popen(
        [PYTHON, drivers], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Libraries(process)
        process.terminate()  # some of them would first want to report home


@pytest.fixture(scope="session")
def proxy_url(embedder_url: str, qdrant_url: str) -> Iterator[str]:
    """One worker, so that what is a hit does not depend on who answers."""
    with proxy(embedder_url, qdrant_url, workers=1) as url:
        yield url
