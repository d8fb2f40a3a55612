"""The real process, over a socket."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import orjson

from local_stack.qdrant.__main__ import main

ROOT = Path(__file__).parents[2]
START_S = 30.0

CACHE_SETTINGS = {
    "vectors": {"size": 4, "distance": "Dot"},
    "hnsw_config": {"m": 0, "payload_m": 0},
    "optimizers_config": {"indexing_threshold": 0},
}


class Reply(NamedTuple):
    status: int
    content_type: str | None
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def result(self) -> Any:
        assert self.status == 200, self
        return self.json["result"]

    @property
    def error(self) -> str:
        assert self.status != 200, self
        message: str = self.json["status"]["error"]
        return message


def launch(folder: Path, *flags: str, port: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "local_stack.qdrant", "--data-dir", str(folder)]
    return subprocess.Popen(
        [*command, "--port", str(port), *flags],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def refusal(folder: Path, port: int = 0) -> str:
    """What the program says where it cannot start.

    It runs in this process, since another takes a second to start.
    """
    with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as errors:
        status = main(["--data-dir", str(folder), "--port", str(port)])
    assert (status, output.getvalue()) == (1, "")
    assert errors.getvalue().count("\n") == 1, errors.getvalue()
    return errors.getvalue()


class Server:
    """A running process; restarting keeps the folder and changes the port."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.flags = flags
        self.start()

    def start(self) -> None:
        self.process = launch(self.folder, *self.flags)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate(timeout=START_S)[1])
        self.ready: dict[str, Any] = json.loads(line)
        self.url: str = self.ready["url"]
        address = urlsplit(self.url)
        assert address.hostname is not None
        assert address.port is not None
        self.port = address.port
        self._connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """One request on the kept connection; a body that is no bytes is sent as JSON."""
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request(method, path, raw, headers or {})
        response = self._connection.getresponse()
        return Reply(response.status, response.headers.get("content-type"), response.read())

    def create(self, name: str = "cache", size: int = 4) -> None:
        settings = {**CACHE_SETTINGS, "vectors": {"size": size, "distance": "Dot"}}
        assert self.call("PUT", f"/collections/{name}", settings).result is True

    def upsert(self, points: list[dict[str, Any]], name: str = "cache", wait: bool = True) -> Reply:
        flag = "true" if wait else "false"
        return self.call("PUT", f"/collections/{name}/points?wait={flag}", {"points": points})

    def retrieve(self, ids: list[Any], name: str = "cache") -> list[Any]:
        body = {"ids": ids, "with_vector": True, "with_payload": True}
        records: list[Any] = self.call("POST", f"/collections/{name}/points", body).result
        return records

    def count(self, condition: Any = None, name: str = "cache") -> int:
        body = {"exact": True} if condition is None else {"exact": True, "filter": condition}
        count: int = self.call("POST", f"/collections/{name}/points/count", body).result["count"]
        return count

    def stop(self) -> tuple[int, str]:
        """Ends it by SIGTERM; its exit status and what it said on stderr."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> tuple[int, str]:
        self._connection.close()
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=START_S)
        return self.process.returncode, errors


def bits(vector: Any) -> bytes:
    """The float32 a vector's numbers stand for."""
    return np.asarray(vector, dtype=np.float32).tobytes()
