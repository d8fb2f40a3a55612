"""The last quarter of an hour: sums over all workers, sampled by one of them for all.

Whoever holds the lock on the folder samples; the system lets go of it when that worker ends, and
another goes on with the same file. So every worker tells the same, and a restart loses nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from proxy_app.telemetry.samples import Sample, within
from proxy_app.workers.ledger import read_if, replace
from proxy_app.workers.locks import try_lock

#: Seconds between two samples.
INTERVAL = 5.0


class History:
    """The samples of a folder, as any of its workers sees them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "history.json"
        self._lock = os.open(folder / "history.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._samples: list[Sample] | None = None

    def close(self) -> None:
        """Let another worker sample."""
        os.close(self._lock)

    def is_due(self, now: float) -> bool:
        """Tell whether this worker is the one that samples, and whether it is time to."""
        if self._samples is None:
            if not try_lock(self._lock):
                return False
            self._samples = self.read()
        return not self._samples or not 0 <= now - self._samples[-1].time < INTERVAL

    def keep(self, latest: Sample) -> None:
        """Keep a sample and forget what is too old, or from a clock that was put back."""
        assert self._samples is not None, "only who is due keeps samples"
        self._samples = within(self._samples, latest)
        replace(self._path, msgspec.json.encode(self._samples))

    def read(self) -> list[Sample]:
        """Return all samples, oldest first."""
        content = read_if(self._path)
        return msgspec.json.decode(content, type=list[Sample]) if content else []
