"""A body of 8 MiB holds a worker neither long nor much memory, whatever its shape.

That its turns are short is a check of every test that runs a proxy (``serving``).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proxy.conftest import StartProxy, worker_pids

SIZE = 8 * 2**20


def filled(element: bytes) -> bytes:
    """Make an array of so many elements that it has SIZE bytes."""
    return b"[" + b",".join([element] * (SIZE // (len(element) + 1))) + b"]"


#: The value of ``inputs``, and the statuses that it may get.
SHAPES = {
    "lists of one id": (filled(b"[1]"), {422}),
    "tiny texts": (filled(b'"a"'), {422}),
    "empty lists": (filled(b"[]"), {422}),
    "ids": (filled(b"1"), {413}),
    "long lists of ids": (filled(b"[" + b",".join([b"7"] * 400_000) + b"]"), {200, 413, 422}),
    "one text": (b'"' + b"x" * SIZE + b'"', {413}),
    "escapes": (b'["' + b"\\u00e9" * (SIZE // 6) + b'"]', {413}),
    "escaped quotes": (b'["' + b'\\"[' * (SIZE // 3) + b'"]', {413}),
    "nested arrays": (b"[" * (SIZE // 2) + b"]" * (SIZE // 2), {400, 422}),
    "nested objects": (b'{"a":' * (SIZE // 6) + b"1" + b"}" * (SIZE // 6), {400, 422}),
    "objects": (filled(b'{"a":1}'), {422}),
}


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings", "/embed_sparse"])
async def test_a_large_body_of_any_shape(start: StartProxy, path: str) -> None:
    proxy = await start(store=False)
    name = b"input" if path == "/v1/embeddings" else b"inputs"
    for shape, (inputs, statuses) in SHAPES.items():
        [worker] = worker_pids(proxy)
        before = memory(worker)
        status, _, _ = await proxy.post(b'{"' + name + b'":' + inputs + b"}", path)
        grown = (memory(worker, "VmHWM") - before) / SIZE
        forget_peak(worker)
        print(f"{path} {shape}: {status}, memory {grown:.1f} times the body")
        if path != "/embed_sparse":  # what is passed on is TEI's to judge
            assert status in statuses, shape
        assert grown < 8, shape


def forget_peak(pid: int) -> None:
    """Have the kernel begin a new peak of a process's memory (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def memory(pid: int, line: str = "VmRSS") -> int:
    """Return a process's resident memory, or its peak, in bytes."""
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith(line + ":"):
            return int(text.split()[1]) * 1024
    raise AssertionError(line)
