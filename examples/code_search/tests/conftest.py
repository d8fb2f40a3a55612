"""What the tests share: the real local stack, and settings with folders of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from code_search.settings import Settings
from repositories import GitServer, Repository, serving
from stand_in import StandIn, standing_in

# What could not run counts as a failure on CI, here too.
from tests.not_run import pytest_sessionfinish as pytest_sessionfinish

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def endpoint_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The stack of `make run`: the model, the cache and the proxy, on a free port."""
    python = ROOT / ".venv" / "bin" / "python"
    if not python.exists():
        reason = "no .venv: `python3 scripts/bootstrap.py run` makes it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("stack")
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, "-m", "local_stack"],
            cwd=ROOT,
            env={
                **os.environ,
                "PORT": str(port),
                "WORKERS": "1",
                "DATA_DIR": str(folder / "cache"),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 280
    while process.poll() is None and time.monotonic() < end:
        # Its last line, after a self-test: before that others' requests would disturb it.
        if "Ready:" in log.read_text():
            with urllib.request.urlopen(url + "/readyz") as reply:
                assert reply.status == 200
            return
        time.sleep(0.1)
    pytest.fail(f"the stack did not start: {log.read_text()[-2000:]}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings without an endpoint."""
    return Settings(endpoint="http://127.0.0.1:1", data_dir=str(tmp_path / "data"), patience=5)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "served" / "owner" / "project")


@pytest.fixture
async def git_server(tmp_path: Path) -> AsyncIterator[GitServer]:
    """Serve what is below ``served``, as `repository` is."""
    async with serving(tmp_path / "served") as server:
        yield server


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    async with standing_in() as stand_in:
        yield stand_in
