"""The whole chain with real parts: the embedder, the embedded Qdrant, the proxy's two workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.proxy.conftest import free_port


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``python -m …`` until the body ends."""
    child = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        yield child
    finally:
        child.terminate()
        child.communicate(timeout=60)


def ready_line(child: subprocess.Popen[str]) -> dict[str, Any]:
    """Read the line of JSON that a part prints once it listens."""
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, "it ended without listening"
    ready: dict[str, Any] = json.loads(line)
    return ready


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
    with process("local_stack.embedder", "--port", "0") as child:
        yield ready_line(child)["url"]


@pytest.fixture(scope="session")
def qdrant_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = str(tmp_path_factory.mktemp("qdrant"))
    with process("local_stack.qdrant", "--data-dir", folder, "--port", "0") as child:
        yield ready_line(child)["url"]


@contextmanager
def proxy(upstream: str, qdrant: str, **settings: str) -> Iterator[str]:
    """Run the proxy with two workers until it is ready and the store answers."""
    port = free_port()
    arguments = ["--upstream", upstream, "--bind", "127.0.0.1", "--port", str(port)]
    environment = {"EMBEDRACK_STORE_TIMEOUT": "5"} | settings
    with process(
        "proxy_app", "serve", *arguments, "--qdrant", qdrant, "--workers", "2", **environment
    ):
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
