"""The store is killed while the proxy writes: no request fails, and nothing stays lost."""

from __future__ import annotations

import json
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from tests.stack.conftest import post, proxy
from tests.stand_ins.process import first_line, free_port, started


def entries(qdrant: str) -> int:
    """Count the points of all collections."""
    with urllib.request.urlopen(qdrant + "/collections") as reply:
        names = [c["name"] for c in json.load(reply)["result"]["collections"]]
    return sum(
        post(f"{qdrant}/collections/{name}/points/count", {"exact": True})[1]["result"]["count"]
        for name in names
    )


def test_kill_the_store_amid_writes(embedder_url: str, tmp_path: Path) -> None:
    arguments = ("local_stack.qdrant", "--data-dir", str(tmp_path / "q"), "--port")
    qdrant = f"http://127.0.0.1:{(port := free_port())}"
    replies: dict[str, list[float]] = {}

    def ask(url: str, start: int) -> str:
        texts = [f"crash {i}" for i in range(start, start + 40)]
        status, vectors, headers = post(url + "/embed", {"inputs": texts})
        assert status == 200
        for text, vector in zip(texts, vectors, strict=True):
            assert replies.setdefault(text, vector) == vector
        return headers["X-Cache"]

    with ExitStack() as stack:
        first = stack.enter_context(started(*arguments, str(port)))
        first_line(first)
        url = stack.enter_context(proxy(embedder_url, qdrant))
        for start in range(0, 400, 40):
            if start == 200:
                first.kill()
            ask(url, start)
        second = stack.enter_context(started(*arguments, str(port)))
        first_line(second)
        for _ in range(200):
            if entries(qdrant) == 400:
                break
            time.sleep(0.1)
        assert entries(qdrant) == 400
        other = stack.enter_context(proxy(embedder_url, qdrant))
        for start in range(0, 400, 40):
            assert ask(other, start) == "hit; hits=40; misses=0"
