"""The embedder as a process of its own, spoken to over a socket."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
JSON = {"content-type": "application/json"}


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "local_stack.embedder", *flags]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Process:
    """Starts with the ``with`` block, or raises; ends with it by the signal to stop."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags

    def __enter__(self) -> Process:
        self.popen = subprocess.Popen(
            command("--port", "0", *self._flags),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            _, errors = self.popen.communicate()
            raise AssertionError(f"the embedder did not start: {errors}")
        self.ready: dict[str, Any] = json.loads(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.popen.terminate()
        self.popen.communicate(timeout=60)

    @property
    def netloc(self) -> str:
        return urlsplit(str(self.ready["url"])).netloc

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        connection = HTTPConnection(self.netloc, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: object) -> Reply:
        return self.ask("POST", path, json.dumps(body).encode(), JSON)
