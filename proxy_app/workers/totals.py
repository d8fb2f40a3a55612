"""What all workers have counted: each leaves its tallies, reads everyone's, and one keeps history.

What another worker counted shows with a lag of at most TICK; one's own shows at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from proxy_app.telemetry.metrics import TALLIES
from proxy_app.telemetry.samples import sample
from proxy_app.telemetry.tallies import Sums
from proxy_app.workers.folder import Folder
from proxy_app.workers.history import History
from proxy_app.workers.ledger import Ledger

#: Seconds between two times that a worker leaves its tallies.
TICK = 0.5


class Totals:
    """One worker's part in them; ``measure`` sets its gauges."""

    def __init__(self, folder: Folder, measure: Callable[[], None]) -> None:
        self._ledger = Ledger(folder)
        self._measure = measure
        self.history = History(folder)

    def publish(self) -> None:
        """Leave this worker's tallies as they are now."""
        self._measure()
        self._ledger.publish(TALLIES.snapshot())

    def sums(self) -> Sums:
        """Return the sums over all workers, this one's up to now."""
        self.publish()
        return self._ledger.read()

    async def run(self) -> None:
        """Publish for ever, and sample if this is the worker that does; run as a task."""
        while True:
            self.publish()
            now = time.time()
            if self.history.is_due(now):
                self.history.keep(sample(self._ledger.read(), now))
            await asyncio.sleep(TICK)

    def close(self) -> None:
        """Leave the last tallies, and the history to another worker."""
        self.publish()
        self.history.close()
