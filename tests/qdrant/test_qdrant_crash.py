"""What was acknowledged survives kill -9 in the middle of writing."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tests.qdrant.server import Server, bits

SIZE = 256
BATCH = 64
SECONDS = (0.3, 1.1, 2.3, 0.6, 1.6)


class Writer(threading.Thread):
    """Upserts, overwrites, deletes, makes and drops collections until the process is gone."""

    def __init__(self, server: Server, round_: int) -> None:
        super().__init__()
        self.vectors: dict[int, bytes] = {}
        """Every acknowledged point."""
        self.deleted: set[int] = set()
        self.made: set[str] = set()
        self.dropped: set[str] = set()
        self.unsure: set[int] = set()
        """Points of the operation under way."""
        self._server = server
        self._round = round_
        self._random = np.random.default_rng(round_)

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        try:
            step = 0
            while True:
                self._write(connection, step)
                step += 1
        except (OSError, http.client.HTTPException):
            connection.close()

    def _write(self, connection: http.client.HTTPConnection, step: int) -> None:
        first = self._round * 1_000_000 + step * BATCH
        ids = list(range(first, first + BATCH))
        if step % 3 == 2:  # Overwrite what the last step wrote.
            ids = [id_ - BATCH for id_ in ids]
        vectors = self._random.standard_normal((BATCH, SIZE)).astype(np.float32)
        self.unsure = set(ids)
        points = [
            {"id": i, "vector": v, "payload": {"t": i}} for i, v in zip(ids, vectors, strict=True)
        ]
        path = f"/collections/cache/points?wait={'true' if step % 2 else 'false'}"
        call(connection, "PUT", path, {"points": points})
        self.vectors.update(zip(ids, (bits(v) for v in vectors), strict=True))
        self.deleted.difference_update(ids)
        if step % 5 == 4:
            self.unsure = set(ids)
            call(connection, "POST", "/collections/cache/points/delete", {"points": ids})
            for id_ in ids:
                self.vectors.pop(id_, None)
            self.deleted.update(ids)
        self.unsure = set()
        if step % 20 == 10:
            self._make_and_drop(connection, step)

    def _make_and_drop(self, connection: http.client.HTTPConnection, step: int) -> None:
        name = f"c{self._round}-{step}"
        vectors = {"size": 4, "distance": "Dot"}
        call(connection, "PUT", f"/collections/{name}", {"vectors": vectors})
        if step % 40 == 10:
            self.made.add(name)
            return
        call(connection, "DELETE", f"/collections/{name}", None)
        self.dropped.add(name)


def call(connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> None:
    raw = None if body is None else orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    connection.request(method, path, raw)
    response = connection.getresponse()
    content = json.loads(response.read())
    assert response.status == 200, content


@pytest.fixture
def eager(tmp_path: Path) -> Iterator[Server]:
    """A process that flushes and rewrites segments often while it is being written to."""
    server = Server(tmp_path / "data", "--quiet", "0", "--flush", "1")
    yield server
    server.stop()


@pytest.mark.timeout(120)
def test_nothing_acknowledged_is_lost_by_kill_9(eager: Server) -> None:
    server = eager
    server.create(size=SIZE)
    vectors: dict[int, bytes] = {}
    made: set[str] = set()
    for round_ in range(len(SECONDS)):
        writer = Writer(server, round_)
        writer.start()
        # From the middle of the first writes to several flushes and optimisations later.
        time.sleep(SECONDS[round_])
        server.kill()
        writer.join()
        assert writer.vectors, "nothing was written before the kill"
        made |= writer.made
        server.start()
        names = {c["name"] for c in server.call("GET", "/collections").result["collections"]}
        assert made | {"cache"} <= names
        assert not writer.dropped & names
        # The operation the kill interrupted may have happened or not.
        certain = {k: v for k, v in writer.vectors.items() if k not in writer.unsure}
        check(server, certain)
        assert server.retrieve(sorted(writer.deleted - writer.unsure)) == []
        vectors |= certain
    check(server, vectors)


def check(server: Server, vectors: dict[int, bytes]) -> None:
    ids = list(vectors)
    for start in range(0, len(ids), 1000):
        asked = ids[start : start + 1000]
        stored = {p["id"]: p for p in server.retrieve(asked)}
        assert [id_ for id_ in asked if id_ not in stored] == []
        assert [id_ for id_ in asked if bits(stored[id_]["vector"]) != vectors[id_]] == []
        assert [id_ for id_ in asked if stored[id_]["payload"] != {"t": id_}] == []
