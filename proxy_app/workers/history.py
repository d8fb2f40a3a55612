"""The last quarter of an hour: sums over all workers, sampled by one of them for all.

Whoever holds the lock on the folder samples; the system lets go of it when that worker ends, and
another goes on with the same file. So every worker tells the same, and a restart loses nothing.
"""

from __future__ import annotations

import os

import msgspec

from proxy_app.telemetry.samples import Sample, within
from proxy_app.workers.folder import Folder
from proxy_app.workers.ledger import read_if, replace
from proxy_app.workers.locks import try_lock

#: Seconds between two samples.
INTERVAL = 5.0


class History:
    """The samples of a folder, as any of its workers sees them."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._path = folder.path / "history.json"
        self._samples: list[Sample] = []
        self._is_ours = False
        self._lock = self._open()

    def close(self) -> None:
        """Let another worker sample."""
        os.close(self._lock)

    def is_due(self, now: float) -> bool:
        """Tell whether this worker is the one that samples, and whether it is time to."""
        if not os.fstat(self._lock).st_nlink:  # the folder was emptied, and who is first goes on
            os.close(self._lock)
            self._lock = self._open()
            self._is_ours = False
        if not self._is_ours:
            if not try_lock(self._lock):
                return False
            self._is_ours = True
            self._samples = self.read() or self._samples
        return not self._samples or not 0 <= now - self._samples[-1].time < INTERVAL

    def keep(self, latest: Sample) -> None:
        """Keep a sample and forget what is too old, or from a clock that was put back."""
        assert self._is_ours, "only who is due keeps samples"
        self._folder.ensure()
        self._samples = within(self._samples, latest)
        replace(self._path, msgspec.json.encode(self._samples))

    def read(self) -> list[Sample]:
        """Return all samples, oldest first."""
        content = read_if(self._path)
        return msgspec.json.decode(content, type=list[Sample]) if content else []

    def _open(self) -> int:
        self._folder.ensure()
        lock = self._folder.path / "history.lock"
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
