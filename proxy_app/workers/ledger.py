"""Where the workers of one server leave their tallies: a folder, a file for each worker.

What a worker had counted when it ended is added to ``ended.json`` by gunicorn's master, so that
counts never go backwards; its gauges go with it. Every file is replaced whole, and counts grow, so
whoever reads after another reader sees no smaller number.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from proxy_app.telemetry.tallies import Snapshot, Sums, add
from proxy_app.workers.folder import Folder

#: Names of ended workers that are remembered, for whoever had just listed the folder.
REMEMBERED = 100


class _Ended(msgspec.Struct):
    """What all workers that ended had counted, and the files of the latest of them."""

    counts: list[tuple[str, tuple[str, ...], list[float]]]
    files: list[str]


_snapshot = msgspec.json.Decoder(Snapshot)
_ended = msgspec.json.Decoder(_Ended)


class Ledger:
    """One process' view of the folder."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        # A process id may come again; the time makes the name this process' own.
        self._file = folder.path / f"worker-{os.getpid()}-{time.time_ns()}.json"
        self._ended = folder.path / "ended.json"
        self._published = b""

    def publish(self, snapshot: Snapshot) -> None:
        """Leave this process' tallies; costs next to nothing while they do not change."""
        content = msgspec.json.encode(snapshot)
        if content == self._published and self._file.exists():
            return
        self._folder.ensure()
        replace(self._file, content)
        self._published = content

    def read(self) -> Sums:
        """Sum up what all workers left, those that ended included."""
        read = {path.name: content for path in self._workers() if (content := read_if(path))}
        # Last: who ended since then is in here, and is left out above.
        ended = self._read_ended()
        sums: Sums = {}
        add(sums, ended.counts)
        for name, content in read.items():
            if name not in ended.files:
                snapshot = _snapshot.decode(content)
                add(sums, snapshot.counts)
                add(sums, snapshot.gauges)
        return sums

    def close(self, pid: int) -> None:
        """Add up what an ended worker had counted; the master's to call."""
        ended = self._read_ended()
        sums: Sums = {}
        add(sums, ended.counts)
        self._folder.ensure()
        files = list(self._folder.path.glob(f"worker-{pid}-*.json"))
        for path in files:
            add(sums, _snapshot.decode(path.read_bytes()).counts)
        counts = [(name, values, numbers) for (name, values), numbers in sums.items()]
        names = [*ended.files, *(path.name for path in files)][-REMEMBERED:]
        replace(self._ended, msgspec.json.encode(_Ended(counts, names)))
        for path in self._folder.path.glob(f"worker-{pid}-*"):
            path.unlink()

    def _workers(self) -> list[Path]:
        return list(self._folder.path.glob("worker-*.json"))

    def _read_ended(self) -> _Ended:
        content = read_if(self._ended)
        return _ended.decode(content) if content else _Ended([], [])


def replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the former or the new content, whole."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def read_if(path: Path) -> bytes:
    """Return a file's content, or nothing where there is no such file (any more)."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
