"""The whole chain with real parts: the embedder, the embedded Qdrant, the proxy's two workers."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.stand_ins.process import first_line, free_port, started


def post(url: str, body: object) -> tuple[int, Any, dict[str, str]]:
    """Post JSON; gives status, the decoded reply and its headers."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return reply.status, json.load(reply), dict(reply.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), dict(error.headers)


@pytest.fixture(scope="session")
def embedder_url() -> Iterator[str]:
    with started("local_stack.embedder", "--port", "0") as child:
        yield str(json.loads(first_line(child))["url"])


@pytest.fixture(scope="session")
def qdrant_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = str(tmp_path_factory.mktemp("qdrant"))
    with started("local_stack.qdrant", "--data-dir", folder, "--port", "0") as child:
        yield str(json.loads(first_line(child))["url"])


@contextmanager
def proxy(upstream: str, qdrant: str, *, workers: int = 2, **settings: str) -> Iterator[str]:
    """Run the proxy until it is ready and the store answers."""
    port = free_port()
    arguments = ["--upstream", upstream, "--bind", "127.0.0.1", "--port", str(port)]
    arguments += ["--qdrant", qdrant, "--workers", str(workers)]
    environment = {"EMBEDRACK_STORE_TIMEOUT": "5"} | settings
    with started("proxy_app", "serve", *arguments, **environment):
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                with urllib.request.urlopen(url + "/readyz") as reply:
                    if json.load(reply)["store"] == "ok":
                        break
            except (urllib.error.URLError, ConnectionError):
                pass  # not listening yet, or not ready
            time.sleep(0.1)
        else:
            raise AssertionError("the proxy did not become ready")
        yield url


@pytest.fixture(scope="session")
def proxy_url(embedder_url: str, qdrant_url: str) -> Iterator[str]:
    # One MiB of L1 over two workers: some 100 entries each, so that the store is asked as well.
    with proxy(embedder_url, qdrant_url, EMBEDRACK_MEMORY="1") as url:
        yield url
